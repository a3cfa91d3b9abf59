"""The loop on enumerable models: its law through the gate, its law after a check, and how far it goes back.

Counts of answers over independent runs, |z| < 5 (false alarm 6e-7 each), seeds fixed.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, drive, reward, search
from anystep.procedure import Method
from anystep.process import Status
from anystep.testing.oracles import Countdown, EnumerableLM
from anystep.testing.oracles.language import EOS, Tokens

LM = EnumerableLM(seed=3, vocab=3, length=3)
RUNS = 400


def bad(x: Tokens) -> bool:
    return bool(x) and x[-1] == 2


def odd(x: Tokens) -> bool:
    return sum(x) % 2 == 1


GATE = reward(lambda states: np.array([0.0 if bad(x) else 1.0 for x in states.tuples()]), "gate")
CHECK = reward(lambda states: np.array([0.0 if odd(x) else 1.0 for x in states.tuples()]), "check")


def gated(retries: int) -> dict[Tokens, Fraction]:
    """The exact law of a chain whose every step is drawn again, up to so many times, while the gate objects."""
    law: dict[Tokens, Fraction] = {}
    open_: list[tuple[Tokens, Fraction]] = [((), Fraction(1))]
    while open_:
        prefix, mass = open_.pop()
        row = [Fraction(int(k), int(sum(LM.numerators[LM.number(prefix)]))) for k in LM.numerators[LM.number(prefix)]]
        refused = sum(p for t, p in enumerate(row) if bad((*prefix, t)))
        for t, p in enumerate(row):
            x = (*prefix, t)
            tries = refused**retries if bad(x) else sum(refused**i for i in range(retries + 1))
            ends = t == EOS or len(x) == LM.length
            if ends:
                law[x] = mass * p * tries
            else:
                open_.append((x, mass * p * tries))
    return law


def answers(method: Method, process: Any = LM) -> Counter[Any]:
    runs = [Run(process, method, seed=seed) for seed in range(RUNS)]
    return Counter(answer.value for answer in drive(*runs))


def agree(found: Counter[Any], exact: dict[Any, Fraction]) -> None:
    assert sum(exact.values()) == 1 and set(found) <= set(exact)
    for x, p in exact.items():
        z = (found[x] - RUNS * float(p)) / np.sqrt(max(RUNS * float(p * (1 - p)), 1e-9))
        assert abs(z) < 5, (x, found[x], RUNS * float(p))


@pytest.mark.parametrize("retries", [1, 3])
def test_the_gate_s_law_is_that_of_redrawn_steps(retries: int) -> None:
    agree(answers(search.consistency_check_loop(gate=GATE, retries=retries)), gated(retries))


def test_without_gate_and_check_it_samples() -> None:
    agree(answers(search.consistency_check_loop()), LM.outputs)


def test_the_check_s_law_is_that_of_chains_written_again() -> None:
    """A check that says 0 sends a chain back to its beginning; at last the first flagged one answers."""
    passes = sum(p for x, p in LM.outputs.items() if not odd(x))
    flagged = 1 - passes
    exact = {x: p * (flagged**2 if odd(x) else 1 + flagged + flagged**2) for x, p in LM.outputs.items()}
    agree(answers(search.consistency_check_loop(check=CHECK, rounds=3)), exact)


def test_it_goes_back_to_the_step_that_contradicts_and_then_further() -> None:
    """Chains of six steps of which half stand: 6 steps, then 3 from the third on, then 4, 5, 6 and 6."""
    half = reward(lambda states: np.full(len(states), 0.5), "half")
    paid = []
    for rounds in range(1, 7):
        run = Run(Countdown(top=6), search.consistency_check_loop(check=half, rounds=rounds))
        drive(run)
        paid.append(run.spent.evaluations)
    assert np.diff([0, *paid]).tolist() == [6, 3, 4, 5, 6, 6]


def test_a_chain_without_contradiction_ends_the_loop_and_an_unscored_one_too() -> None:
    for value in (1.0, np.nan):
        check = reward(lambda states, value=value: np.full(len(states), value), "check")
        run = Run(Countdown(top=4), search.consistency_check_loop(check=check, rounds=5))
        (answer,) = drive(run)
        assert run.spent.evaluations == 4 and answer.population is not None
        assert answer.population.status.tolist() == [Status.DONE]


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="call consistency_check_loop"):
        search.consistency_check_loop(gate=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="call consistency_check_loop"):
        search.consistency_check_loop(rounds=0)
