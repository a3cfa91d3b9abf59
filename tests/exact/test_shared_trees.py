"""REBASE and diverse verifier tree search at their limits, where they must be methods that are known exactly."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from anystep import Run, drive, reward, search
from anystep.search.rebase import allotted
from anystep.testing import assert_law, merged
from anystep.testing.oracles import EnumerableLM
from anystep.testing.oracles.language import Tokens

LM = EnumerableLM(seed=5, vocab=3, length=4)


def worth(x: Tokens) -> float:
    return float(0.5 + 0.5 * np.sin(2.3 * sum((i + 1) * t for i, t in enumerate(x)) + len(x)))


WORTH = reward(lambda states: np.array([worth(x) for x in states.tuples()]), "worth")
FLAT = reward(lambda states: np.full(len(states), 0.5), "flat")


def lines(answer: Any) -> list[Tokens]:
    return list(answer.population.states.tuples())


def test_one_tree_is_a_beam_state_by_state() -> None:
    for process in (LM, EnumerableLM(seed=5, vocab=3, length=4, expands=True)):
        for width in (1, 3):
            for seed in range(5):
                one, beam = drive(
                    Run(process, search.dvts(trees=1, reward=WORTH, branch=3, width=width), seed=seed),
                    Run(process, search.beam(width=width, reward=WORTH, branch=3), seed=seed),
                )
                assert one.population is not None and beam.population is not None
                assert sorted(lines(one)) == sorted(lines(beam)) and one.value == beam.value
                assert one.cost.same(beam.cost)


def test_trees_never_compete() -> None:
    """Each tree's line is the one that it would find as the only tree that grows from its own start."""
    many = Run(LM, search.dvts(trees=6, reward=WORTH, branch=3), seed=4)
    (answer,) = drive(many)
    assert answer.population is not None and len(answer.population) == 6
    for row in range(6):
        line = many.books.family.ancestors(int(answer.population.id[row]))
        assert line[0] == row, "the lines come from six different starts"
    (beam,) = drive(Run(LM, search.beam(width=6, reward=WORTH, branch=3), seed=4))
    assert len({*lines(answer)}) > len({*lines(beam)}), "a beam of six keeps fewer apart here"
    assert worth(answer.value) == max(map(worth, lines(answer)))


def test_branch_one_is_independent_samples() -> None:
    runs = merged(lambda seed: Run(LM, search.dvts(trees=4, reward=WORTH, branch=1), seed=seed), range(80))
    assert_law([x for run in runs if run.answer for x in lines(run.answer)], LM.outputs)


def test_where_a_process_expands_its_first_children_are_dealt_out() -> None:
    lm = EnumerableLM(seed=5, vocab=3, length=4, expands=True)
    (answer,) = drive(Run(lm, search.dvts(trees=5, reward=WORTH, branch=2)))
    firsts = [x[0] for x in lines(answer)]
    assert len(firsts) == len(set(firsts)) == 3, "three different first tokens, and no tree for more"


def test_a_reward_that_says_nothing_leaves_independent_samples() -> None:
    runs = merged(lambda seed: Run(LM, search.rebase(n=5, reward=FLAT), seed=seed), range(80))
    assert_law([x for run in runs if run.answer for x in lines(run.answer)], LM.outputs)
    high = merged(lambda s: Run(LM, search.rebase(n=5, reward=WORTH, temperature=1e6), seed=s), range(80))
    assert_law([x for run in high if run.answer for x in lines(run.answer)], LM.outputs)
    led = merged(lambda s: Run(LM, search.rebase(n=5, reward=WORTH, temperature=0.1), seed=s), range(80))
    with pytest.raises(AssertionError):
        assert_law([x for run in led if run.answer for x in lines(run.answer)], LM.outputs)


def test_one_state_wide_it_is_one_sample() -> None:
    runs = merged(lambda seed: Run(LM, search.rebase(n=1, reward=WORTH, temperature=0.01), seed=seed), range(300))
    assert_law([run.answer.value for run in runs if run.answer], LM.outputs)


def greedy_law(n: int) -> dict[Tokens, float]:
    """The law of the last output when all places go to the best open state, by enumerating what n draws can be."""
    found: dict[Tokens, float] = {}

    def descend(prefix: Tokens, places: int, mass: float) -> None:
        p = LM.forward(np.array([LM.number(prefix)]))[0]
        rows = [((*prefix, t), float(p[t])) for t in range(LM.vocab)]
        draws: list[tuple[tuple[Tokens, ...], float]] = [((), 1.0)]
        for _ in range(places):
            draws = [((*xs, x), q * r) for xs, q in draws for x, r in rows]
        for xs, q in draws:
            live = [x for x in xs if x not in LM.outputs]
            if live:
                descend(max(live, key=worth), len(live), mass * q)
            else:
                found[xs[-1]] = found.get(xs[-1], 0.0) + mass * q

    descend((), n, 1.0)
    return found


def test_at_temperature_nought_all_places_go_to_the_best_state() -> None:
    """Against the enumerated law of what comes last: n draws of the best state a step, the finished ones set aside."""
    runs = merged(lambda s: Run(LM, search.rebase(n=3, reward=WORTH, temperature=1e-4), seed=s), range(400))
    last = [lines(run.answer)[-1] for run in runs if run.answer]
    assert_law(last, greedy_law(3))


def test_every_place_comes_to_an_end_and_no_step_makes_more_than_there_are() -> None:
    for seed in range(20):
        run = Run(LM, search.rebase(n=7, reward=WORTH), seed=seed)
        (answer,) = drive(run)
        assert answer.population is not None and len(answer.population) == 7 and answer.population.done.all()
        depth = Counter(len(run.books.family.ancestors(i)) for i in range(len(run.books.family)))
        assert max(depth.values()) <= 7 and depth[2] == 7


def test_shares_are_whole_add_up_and_lie_beside_the_exact_ones() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shares, places = rng.exponential(size=rng.integers(1, 9)) + 1e-9, int(rng.integers(0, 30))
        found = allotted(shares, places)
        exact = shares / shares.sum() * places
        assert found.sum() == places and (np.abs(found - exact) < 1).all()
    assert allotted(np.ones(3), 4).tolist() == [2, 1, 1], "equal remainders: the first"
    assert allotted(np.array([1.0, 3.0]), 8).tolist() == [2, 6]
