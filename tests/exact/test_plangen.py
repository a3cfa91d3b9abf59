"""PlanGEN's choice against its formula by hand, its answers against enumeration, and that it stops and counts."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from anystep import Run, drive, reward, search
from anystep.errors import UsageError
from anystep.search.plangen import DIVERSITY, RECOVERY, Played, choice
from anystep.testing import case, merged, procedure_checks
from anystep.testing.oracles import EnumerableLM, HiddenMarkov, JudgeReward
from anystep.testing.oracles.language import Tokens

LM = EnumerableLM(seed=4, vocab=3, length=3)


def worth(x: Tokens) -> float:
    return float(100 * np.sin(2.3 * sum((1 + t) * 3**i for i, t in enumerate(x))))


VERIFIER = reward(lambda states: np.array([worth(x) for x in states.tuples()]), "verifier", (-100, 100))


def test_the_bound_is_the_formula() -> None:
    played, prior = Played((4.0, 2.0), (0.5, 0.7)), np.array([0.3, 0.0])
    found = choice(played, prior, [1], failed=1)
    first = 0.5 + math.sqrt(2 * math.log(8) / 4) + 0.3 / 2 + DIVERSITY + RECOVERY
    second = 0.7 + math.sqrt(2 * math.log(8) / 3) + 0.0 + DIVERSITY / 2
    assert found == pytest.approx([first, second])
    fresh = choice(Played((0.0, 0.0, 0.0), (0.0,) * 3), np.array([0.0, 0.4, 0.1]), [1], failed=None)
    assert np.argsort(-fresh).tolist() == [2, 0, 1], "each is tried once, the most suitable first"


def test_the_answer_s_law_is_enumerated() -> None:
    """With best-of-n as its only algorithm: one draw if it is good enough, else the best of it and n a round."""
    enough, n, runs = 20.0, 2, 700
    law = {x: float(p) for x, p in LM.outputs.items()}
    found: dict[Tokens, float] = {}
    pending = dict(law)
    for _ in range(2):
        after: Counter[Tokens] = Counter()
        for x, p in pending.items():
            if worth(x) >= enough:
                found[x] = found.get(x, 0.0) + p
                continue
            for y, q in law.items():
                for z, r in law.items():
                    after[max((x, y, z), key=worth)] += p * q * r
        pending = dict(after)
    for x, p in pending.items():
        found[x] = found.get(x, 0.0) + p
    assert sum(found.values()) == pytest.approx(1)
    method = search.plangen((search.best_of_n(n, VERIFIER),), VERIFIER, enough=enough, rounds=2)
    counts = Counter(run.answer.value for run in merged(lambda s: Run(LM, method, seed=s), range(runs)) if run.answer)
    for x, p in found.items():
        assert abs(counts[x] / runs - p) <= 5 * np.sqrt(p * (1 - p) / runs) + 1e-9, x


def test_it_stops_at_a_plan_that_is_good_enough_and_counts_what_it_plays() -> None:
    algorithms = (search.best_of_n(5, VERIFIER), search.beam(2, VERIFIER, branch=2))
    (answer,) = drive(Run(LM, search.plangen(algorithms, VERIFIER, enough=-101.0)))
    assert answer.population is not None and len(answer.population) == 1
    (answer,) = drive(Run(LM, search.plangen(algorithms, VERIFIER, enough=101.0, rounds=2, prior=(0.0, 1.0))))
    assert answer.population is not None and len(answer.population) == 1 + 2 + 5
    assert answer.population.scores[answer.row] == answer.population.scores.max()
    (default,) = drive(Run(LM, search.plangen(algorithms, VERIFIER, rounds=1), seed=2))
    good = drive(Run(LM, search.plangen(algorithms, VERIFIER, enough=95.0, rounds=1), seed=2))[0]
    assert default.value == good.value and default.cost.same(good.cost), "95 on -100 to 100 is the paper's"


def test_it_keeps_the_laws_of_procedures() -> None:
    def far(states) -> np.ndarray:  # type: ignore[no-untyped-def]
        return np.asarray((states.size if hasattr(states, "size") else states.t) / 10)

    judge = JudgeReward(far, "judge")
    for process in (EnumerableLM(length=4), HiddenMarkov(steps=3)):
        members = (search.best_of_n(2, judge), search.beam(2, judge, branch=2))
        for check in procedure_checks:
            check(case(search.plangen(members, judge, rounds=2), process, most=20))


def test_what_cannot_be_meant_shows_the_call_that_was() -> None:
    bon = search.best_of_n(2, VERIFIER)
    for wrong in (
        lambda: search.plangen((), VERIFIER),
        lambda: search.plangen(("best_of_n",), VERIFIER),  # type: ignore[arg-type]
        lambda: search.plangen((bon, bon), VERIFIER, prior=(1.0,)),
        lambda: search.plangen((bon,), VERIFIER, played=Played((1.0, 1.0), (0.0, 0.0))),
        lambda: search.plangen((bon,), VERIFIER, rounds=0),
    ):
        with pytest.raises(UsageError, match="plangen"):
            wrong()
