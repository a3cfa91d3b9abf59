"""Searches keep what has finished, go on where a state fails, and answer while anything is live."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, drive, reward, search
from anystep.answer import AllFailed
from anystep.keys import named, uniforms
from anystep.testing.oracles import EnumerableLM, FaultyLM


def figure(states: Any) -> np.ndarray:
    return np.array([float(uniforms(np.uint64(named(str(t))))) for t in states.tuples()])


ANY = reward(figure, "any")
FLAT = reward(lambda states: np.ones(len(states)), "flat")
AT_ITS_END = reward(lambda states: np.where(EnumerableLM(length=4).status(states) == 1, 0.5, np.nan), "outcome")


@pytest.mark.parametrize("seed", range(12))
def test_depth_first_answers_with_the_best_that_finished(seed: int) -> None:
    for length, expansions in ((1, 1), (3, 3), (4, 6)):
        model = EnumerableLM(seed=seed, vocab=4, length=length)
        run = Run(model, search.tree_of_thoughts(ANY, "dfs", branch=4, prune=0.0, expansions=expansions), seed=seed)
        (answer,) = drive(run)
        scored = [v for (_, i), v in run.books.family.scores.items() if run.books.family.status[i] == 1]
        assert answer.population is not None and answer.row is not None
        assert answer.population.scores[answer.row] == pytest.approx(max(scored))


def test_depth_first_needs_a_finite_range() -> None:
    endless = reward(figure, "endless", (-np.inf, 0.0))
    with pytest.raises(UsageError, match="finite range"):
        drive(Run(EnumerableLM(), search.tree_of_thoughts(endless, "dfs")))


@pytest.mark.parametrize("seed", range(20))
def test_an_open_state_is_run_to_its_end_where_rollouts_failed(seed: int) -> None:
    run = Run(FaultyLM(0.3), search.mcts(FLAT, rounds=1, branch=2), seed=seed)
    try:
        (answer,) = drive(run)
    except AllFailed:
        return
    family = run.books.family
    assert answer.row is not None or all(family.status[leaf] == 2 for leaf in family.leaves())


@pytest.mark.parametrize("seed", range(10))
def test_what_cannot_be_associated_goes_on_without(seed: int) -> None:
    model = EnumerableLM(seed=1, vocab=3, length=4)
    for share in (0.5, 1.0):
        broken = FaultyLM(share, vocab=3, length=4)
        (answer,) = drive(Run(model, search.coat(ANY, broken, rounds=6), seed=seed))
        assert answer.row is not None


def test_astar_decode_answers_where_nothing_is_known_on_the_way() -> None:
    for seed in range(6):
        (answer,) = drive(Run(EnumerableLM(length=4), search.astar_decode(AT_ITS_END, 2, 16), seed=seed))
        assert answer.row is not None


def test_astar_decode_tries_again_where_all_that_is_open_failed() -> None:
    for seed in range(30):
        for reopen in (None, 0.1):
            (answer,) = drive(Run(FaultyLM(0.4), search.astar_decode(FLAT, 2, 64, reopen=reopen), seed=seed))
            assert answer.row is not None


def test_a_state_whose_children_fail_does_not_use_up_the_expansions() -> None:
    """With others open it is left alone, or costs more each time."""

    class Cliff(EnumerableLM):
        """The branch that begins with 1 always fails after two tokens, and the reward likes it best."""

        def status(self, states: Any) -> np.ndarray:
            doomed = (states.tokens[:, 0] == 1) & (states.size > 2)
            return np.where(doomed, np.int8(2), super().status(states))

    liked = reward(lambda states: np.where(states.tokens[:, 0] == 1, 0.9, 0.8), "liked")
    for seed in range(10):
        for reopen in (None, 0.1):
            method = search.astar_decode(liked, 2, 40, reopen=reopen)
            (answer,) = drive(Run(Cliff(seed=3, vocab=4, length=5), method, seed=seed))
            assert answer.row is not None


def test_rebase_shares_alike_where_no_reward_is_known() -> None:
    for seed in range(8):
        (answer,) = drive(Run(EnumerableLM(length=4), search.rebase(n=4, reward=AT_ITS_END), seed=seed))
        assert answer.row is not None and answer.finished == 4


def test_a_beam_of_one_child_each_is_best_of_n_on_any_process() -> None:
    (answer,) = drive(Run(EnumerableLM(seed=2, expands=True), search.beam(8, ANY, branch=1), seed=0))
    assert answer.finished >= 4 and answer.population is not None and len(answer.population) == 8


def test_schedules_say_what_they_cannot_be() -> None:
    assert search.Geometric(4, 2).after(np.inf, np.zeros(0)) == np.inf
    for wrong in (lambda: search.Every(0), lambda: search.Geometric(4, 1), lambda: search.Geometric(0, 2)):
        with pytest.raises(UsageError, match="as in"):
            wrong()
