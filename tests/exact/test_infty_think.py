"""InftyThink on an enumerable model: its law after some rounds, what a round knows, and what a round costs."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, drive, search
from anystep.testing.oracles import EnumerableLM, Relay
from anystep.testing.oracles.language import EOS, Tokens

LM = EnumerableLM(seed=3, vocab=4, length=3)
CUT = 1


def rest_of(prefix: Tokens) -> dict[Tokens, Fraction]:
    """The law of whole outputs, given what they begin with."""
    inside = {x: p for x, p in LM.outputs.items() if x[: len(prefix)] == prefix}
    whole = sum(inside.values())
    return {x: p / whole for x, p in inside.items()}


def after(rounds: int) -> dict[Tokens | None, Fraction]:
    """The exact law of answers after so many rounds; None stands for a line that has not concluded."""
    law: dict[Tokens | None, Fraction] = {}
    live: dict[Tokens, Fraction] = {(): Fraction(1)}
    for _ in range(rounds):
        following: dict[Tokens, Fraction] = {}
        for prefix, mass in live.items():
            for x, p in rest_of(prefix).items():
                if x[-1] == EOS:
                    law[x] = law.get(x, Fraction(0)) + mass * p
                else:
                    told = prefix if x[-1] == CUT else x[-1:]
                    following[told] = following.get(told, Fraction(0)) + mass * p
        live = following
    law[None] = sum(live.values(), Fraction(0))
    return law


def answered(rounds: int, n: int, seed: int = 0) -> list[Any]:
    (answer,) = drive(Run(LM, search.infty_think(Relay(LM, CUT), rounds=rounds, n=n), seed=seed))
    population = answer.population
    assert population is not None and population.answers is not None
    return [a if d else None for a, d in zip(population.answers, population.done, strict=True)]


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_the_law_of_answers_is_that_of_rounds_which_know_their_summary_alone(rounds: int) -> None:
    n, exact = 6_000, after(rounds)
    found = Counter(answered(rounds, n))
    assert set(found) <= {x for x, p in exact.items() if p}
    for x, p in exact.items():
        z = (found[x] - n * float(p)) / np.sqrt(max(n * float(p * (1 - p)), 1e-9))
        assert abs(z) < 5, (x, found[x], n * float(p))


def test_more_rounds_only_add_answers() -> None:
    few, many = answered(2, 400), answered(5, 400)
    assert Counter(a for a in few if a is not None) <= Counter(a for a in many if a is not None)
    assert few.count(None) > many.count(None)


def test_a_round_pays_for_itself_alone() -> None:
    """Each round generates at most the length less the token it was told, however many rounds went before."""
    run = Run(LM, search.infty_think(Relay(LM, CUT), rounds=6, n=200), seed=1)
    drive(run)
    costs = [reply.cost for told in run.journal for reply in told.replies]
    paid = [cost.generated for cost in costs if cost.generated]
    live = [len(reply.status) for told in run.journal for reply in told.replies if reply.cost.generated]
    assert len(paid) == 6
    assert all(p <= rows * LM.length for p, rows in zip(paid, live, strict=True))
    assert sum(paid) == run.spent.generated


def test_it_wants_an_editor_and_a_number_of_rounds() -> None:
    for wrong in (lambda: search.infty_think(restart=None), lambda: search.infty_think(Relay(LM), rounds=0)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="call infty_think"):
            wrong()
