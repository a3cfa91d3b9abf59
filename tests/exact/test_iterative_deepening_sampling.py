"""Where cues stand, what law is left, what they cost, and that without any it is plain sampling."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from anystep import Process, Run, UsageError, drive, reward, search
from anystep.keys import Keys
from anystep.language import load
from anystep.language.recheck import trigger, written
from anystep.language.train.recheck import RECHECK
from anystep.ledger import Limit
from anystep.process import Stepped
from anystep.solve import process_for
from anystep.tasks.chains import chains
from anystep.testing import total_variation
from anystep.testing.oracles import EnumerableLM
from anystep.testing.oracles.language import EOS, Tokens

LM = EnumerableLM(seed=3, length=5)
LENGTH = reward(lambda states: states.size, "length", (0, 5))
CUE = 2


class Cue(Process):
    """Writes token `CUE` into an output that is not full."""

    name, branches, logp = "cue", False, "mass"

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return LM.start(keys, limit)

    def step(self, states: Any, keys: Keys, limit: Limit, until: Any) -> Stepped:
        told = LM.appended(states, np.full(len(states), CUE))
        zeros = np.zeros(len(states))
        return Stepped(told, LM.status(told), zeros, zeros, limit.used)

    def answers(self, states: Any) -> tuple[Any, ...]:
        return LM.answers(states)


def cued(first: float, growth: float) -> dict[Tokens, float]:
    """The exact law of outputs: every prefix's mass, a cue behind those that have reached a budget."""
    law: dict[Tokens, float] = {}
    waiting: list[tuple[Tokens, float, float, bool]] = [((), first, 1.0, False)]
    while waiting:
        prefix, due, mass, told = waiting.pop()
        if prefix and (prefix[-1] == EOS or len(prefix) == LM.length):
            law[prefix] = law.get(prefix, 0.0) + mass
            continue
        cue = bool(prefix) and len(prefix) >= due and not told
        if cue:
            while due <= len(prefix):
                due *= growth
            prefix = (*prefix, CUE)
            if len(prefix) == LM.length:
                law[prefix] = law.get(prefix, 0.0) + mass
                continue
        row = LM.numerators[LM.number(prefix)]
        waiting += [((*prefix, t), due, mass * float(p), cue) for t, p in enumerate(row / row.sum())]
    return law


@pytest.mark.parametrize(("first", "growth"), [(1, 2.0), (2, 1.5)])
def test_the_law_behind_cues_is_the_process_s_own_after_them(first: float, growth: float) -> None:
    method = search.iterative_deepening_sampling(4_000, Cue(), LENGTH, first=first, growth=growth)
    (answer,) = drive(Run(LM, method))
    assert answer.population is not None and answer.population.answers is not None
    found = {x: count / 4_000 for x, count in Counter(answer.population.answers).items()}
    exact = cued(first, growth)
    assert sum(exact.values()) == pytest.approx(1.0) and set(found) <= set(exact)
    assert total_variation(found, exact) <= 0.05
    assert total_variation({x: float(p) for x, p in LM.outputs.items()}, exact) > 0.15, "cues that did nothing"


def test_a_first_budget_beyond_every_output_is_plain_sampling() -> None:
    plain, ours = (
        Run(LM, search.sample(n=50), seed=4),
        Run(LM, search.iterative_deepening_sampling(50, Cue(), LENGTH, first=6), seed=4),
    )
    drive(plain, ours)
    a, b = plain.answer, ours.answer
    assert a is not None and b is not None and a.population is not None and b.population is not None
    assert a.population.answers == b.population.answers and (a.population.key == b.population.key).all()
    assert a.population.logp == pytest.approx(b.population.logp, abs=1e-12)
    assert (plain.spent.tokens, plain.spent.evaluations) == (ours.spent.tokens, ours.spent.evaluations)


def test_schedules_give_the_first_budget_above_a_length() -> None:
    none = np.zeros(0)
    assert [search.Geometric(8, 1.5).after(x, none) for x in (0, 7, 8, 12, 20)] == [8, 8, 12, 18, 27]
    assert [search.Every(8).after(x, none) for x in (0, 7, 8, 20)] == [8, 8, 16, 24]
    u = np.array([0.5, 0.1])
    assert [search.Anywhere(2, 40).after(x, u) for x in (0, 4, 20)] == [4, 20, np.inf]


def test_on_a_language_model_cues_stand_where_the_rule_says_and_are_paid_for() -> None:
    engine = load("chainlm-2m")
    task = next(t for t in chains(20, "dev") if t.family == "A")
    process = process_for(task, engine, temperature=1.0)
    process.forget()
    method = search.iterative_deepening_sampling(6, trigger(process, RECHECK), written, first=7, growth=1.5)
    (answer,) = drive(Run(process, method, seed=1))
    assert answer.population is not None
    texts, budgets = answer.population.states.texts(), [7 * 1.5**k for k in range(12)]
    assert sum(text.count(RECHECK) for text in texts) > 6
    for text in texts:
        due, told = budgets[0], False
        for end in [i + 1 for i, c in enumerate(text) if c == "\n" and i + 1 < len(text)]:
            cue = end >= due and not told
            assert (text[end] == RECHECK) == cue
            due, told = next(b for b in budgets if b > end) if cue else due, cue
    cues = [(text, i) for text in texts for i, c in enumerate(text) if c == RECHECK]
    assert answer.cost.generated == sum(map(len, texts)) - len(cues)
    distinct = {text[: i + 1] for text, i in cues}  # equal beginnings are computed, and paid for, once
    assert answer.cost.prompt == len(process.prompt) + len(distinct)


def test_on_a_language_model_without_cues_it_is_plain_sampling_token_by_token() -> None:
    engine = load("chainlm-2m")
    for task in chains(3, "dev"):
        process = process_for(task, engine, temperature=1.0)
        cue = trigger(process, RECHECK)
        plain, ours = (
            Run(process, search.sample(n=8), seed=5),
            Run(process, search.iterative_deepening_sampling(8, cue, written, first=10_000), seed=5),
        )
        drive(plain)
        drive(ours)
        a, b = plain.answer, ours.answer
        assert a is not None and b is not None and a.population is not None and b.population is not None
        assert a.population.states.tokens == b.population.states.tokens


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="growth must be a number above 1"):
        search.iterative_deepening_sampling(2, Cue(), LENGTH, growth=1.0)
    with pytest.raises(UsageError, match="schedule must be a schedule"):
        search.triggered_sampling(2, Cue(), LENGTH, schedule=3)
    with pytest.raises(UsageError, match="writes nothing"):
        trigger(process_for(chains(1, "dev")[0], load("chainlm-2m")), "")
    with pytest.raises(UsageError, match="give the LanguageProcess"):
        trigger(LM, "#")  # type: ignore[arg-type]
