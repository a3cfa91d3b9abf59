"""Hypothesis refinement against enumeration, and its interpreter against Python on every rule of two operations."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest

from anystep import Run, drive, reward, search
from anystep.testing import merged
from anystep.testing.oracles import Again, EnumerableLM
from anystep.testing.oracles.language import Tokens

LM = EnumerableLM(seed=4, vocab=3, length=3)


def worth(x: Tokens) -> float:
    return float(np.sin(2.3 * sum((1 + t) * 3**i for i, t in enumerate(x))) + 1) / 2.5


FIT = reward(lambda states: np.array([worth(x) for x in states.tuples()]), "fit")


def best_of(law: dict[Tokens, float], n: int) -> dict[Tokens, float]:
    """The law of the best of n draws; worth is distinct here, so there are no ties but repeats."""
    ordered, below, found = sorted(law, key=worth), 0.0, {}
    for x in ordered:
        found[x] = (below + law[x]) ** n - below**n
        below += law[x]
    return found


def given(x: Tokens, kept: int) -> dict[Tokens, float]:
    """The model's law of what begins as x does, up to `kept` tokens; all of x where it is no longer than that."""
    if len(x) <= kept:
        return {x: 1.0}
    alike = {y: float(p) for y, p in LM.outputs.items() if y[:kept] == x[:kept] and len(y) > kept}
    whole = sum(alike.values())
    return {y: p / whole for y, p in alike.items()}


def refined(n: int, rounds: int, kept: int) -> dict[Tokens, float]:
    law = best_of({x: float(p) for x, p in LM.outputs.items()}, n)
    for _ in range(rounds - 1):
        after: Counter[Tokens] = Counter()
        for x, p in law.items():
            for y, q in best_of(given(x, kept), n).items():
                after[max(x, y, key=worth)] += p * q
        law = dict(after)
    return law


@pytest.mark.parametrize(("n", "rounds", "kept"), [(2, 3, 0), (1, 3, 1), (3, 2, 1)])
def test_the_answer_s_law_is_enumerated(n: int, rounds: int, kept: int) -> None:
    assert len({worth(x) for x in LM.outputs}) == len(LM.outputs), "the enumeration wants distinct values"
    method = search.hypothesis_refinement(n=n, reward=FIT, reviser=Again(LM, kept), rounds=rounds)
    runs, exact = 500, refined(n, rounds, kept)
    assert sum(exact.values()) == pytest.approx(1)
    found = Counter(run.answer.value for run in merged(lambda s: Run(LM, method, seed=s), range(runs)) if run.answer)
    for x, p in exact.items():
        assert abs(found[x] / runs - p) <= 5 * np.sqrt(p * (1 - p) / runs) + 1e-9, x
    if kept == 0:
        again = best_of({x: float(p) for x, p in LM.outputs.items()}, n * rounds)
        assert all(exact[x] == pytest.approx(again[x]) for x in exact), "a fresh draw each time is best-of-(n rounds)"


def test_what_answers_fits_at_least_as_well_as_any_and_ties_go_to_the_earlier() -> None:
    coarse = reward(lambda states: np.array([round(worth(x), 1) for x in states.tuples()]), "coarse")
    later = 0
    for seed in range(30):
        method = search.hypothesis_refinement(n=3, reward=coarse, reviser=Again(LM, 1), rounds=3)
        (answer,) = drive(Run(LM, method, seed=seed))
        assert answer.population is not None and answer.row is not None
        scores = answer.population.scores
        assert answer.row == int(np.flatnonzero(scores == scores.max())[0])
        later += scores[-3:].max() < scores.max()
    assert later > 2, "the best of the last round, as the released code has it, would fit worse in many runs"


def test_it_stops_where_nothing_fails_and_asks_once_a_round() -> None:
    perfect = reward(lambda states: np.ones(len(states)), "perfect")
    (answer,) = drive(Run(LM, search.hypothesis_refinement(n=3, reward=perfect, reviser=Again(LM, 0), rounds=9)))
    assert answer.population is not None and len(answer.population) == 3
    (answer,) = drive(Run(LM, search.hypothesis_refinement(n=3, reward=FIT, reviser=Again(LM, 0), rounds=4)))
    assert answer.population is not None and len(answer.population) == 12
    revised = [answer.family.parents[i] for i in answer.population.id[3:].tolist()]
    scores = answer.population.scores
    for at in range(3):
        before = 3 * (at + 1)
        best = int(answer.population.id[int(np.argmax(scores[:before]))])
        assert revised[3 * at : 3 * at + 3] == [(best,)] * 3, "each round revises the best so far"


def test_a_process_of_failures_has_no_hypothesis_to_revise() -> None:
    nothing = reward(lambda states: np.full(len(states), np.nan), "nothing")
    (answer,) = drive(Run(LM, search.hypothesis_refinement(n=2, reward=nothing, reviser=Again(LM, 0))))
    assert answer.population is not None and len(answer.population) == 2 and answer.value is not None


def python_says(text: str, x: tuple[int, ...]) -> Any:
    """The rule once more, written as one would in a notebook."""
    for o in text.split(","):
        k = int(o[-1]) if o[-1].isdigit() else None
        match o.rstrip("0123456789"):
            case "r":
                x = tuple(reversed(x))
            case "s":
                x = tuple(sorted(x))
            case "z":
                x = tuple(sorted(x))[::-1]
            case "u":
                x = tuple(d for i, d in enumerate(x) if d not in x[:i])
            case "l":
                x = (*x[1:], *x[:1])
            case "x":
                x = tuple(x[-1 - i] if i in (0, len(x) - 1) else d for i, d in enumerate(x))
            case "m+":
                x = tuple((d + k) % 10 for d in x)
            case "m*":
                x = tuple(d * k % 10 for d in x)
            case "fe" | "fo":
                x = tuple(d for d in x if d % 2 == "eo".index(o[1]))
            case "f>":
                x = tuple(d for d in x if d > k)
            case "f<":
                x = tuple(d for d in x if d < k)
            case "t":
                x = tuple(d for i, d in enumerate(x) if i < k)
            case "d":
                x = tuple(d for i, d in enumerate(x) if i >= k)
            case "p":
                x = (k, *x)
            case "a":
                x = (*x, k)
            case "#":
                if not x:
                    return None
                x = (len(x),)
            case "g" | "n" | "h" | "e" as name:
                if not x:
                    return None
                x = ({"g": max(x), "n": min(x), "h": x[0], "e": x[-1]}[name],)
            case "+":
                x = ((x[0] + k) % 10,)
            case "w":
                x = tuple(x[0] for _ in range(k))
    return x


def test_the_interpreter_says_what_python_says_of_every_rule_of_two_operations() -> None:
    from anystep.tasks.rules import OPERATIONS, parse

    texts = [t for o in OPERATIONS for t in o.texts]
    rng, typed = Random(3), 0
    for a, b in product(texts, texts):
        rule = parse(f"{a},{b}")
        typed += rule is not None
        if rule is not None:
            for size in (0, 1, 2, 4, 5):
                x = tuple(rng.randrange(10) for _ in range(size))
                assert rule.apply(x) == python_says(f"{a},{b}", x), (a, b, x)
    lists = {t for o in OPERATIONS if o.gives == "list" for t in o.texts}
    takes = {t for o in OPERATIONS if o.takes == "list" for t in o.texts}
    reducers = [t for o in OPERATIONS if o.takes == "list" and o.gives == "digit" for t in o.texts]
    on_digits = [t for o in OPERATIONS if o.takes == "digit" for t in o.texts]
    assert typed == len(lists & takes) * len(takes) + len(reducers) * len(on_digits)
