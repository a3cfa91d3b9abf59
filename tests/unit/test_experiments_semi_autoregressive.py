"""Row 215's experiment, small: its checks measure what they name, and played rounds are those of the real loop."""

from __future__ import annotations

import pytest
import torch

from anystep.experiments import Result, semi_autoregressive
from anystep.experiments._parallel_heads import ParallelDrafter, ParallelHeads
from anystep.experiments._replay import followed, play
from anystep.language.accelerate import Draft
from anystep.language.accelerate.semi_autoregressive import SemiAutoregressiveDrafter
from anystep.language.engine.trees import Tree
from anystep.language.train.falcon import FalconRecipe, begin
from anystep.language.train.selftext import write
from models import text, tiny_engine


@pytest.fixture(scope="module")
def world():
    engine = tiny_engine()
    starts = [text(6, seed=i) for i in range(12)]
    return engine, list(write(engine, starts, 60, [0.0] * 12))


@pytest.fixture(scope="module")
def small(world) -> Result:
    engine, some = world
    recipe = FalconRecipe(work=6_000, batch=4, kept=1)
    return semi_autoregressive.run(
        0, lambda line: None, engine, text=some[:8], unseen=some[8:], recipe=recipe, looped=2
    )


def test_it_has_a_check_for_every_clause(small: Result) -> None:
    assert small.row == 215 and Result.from_json(small.to_json()).name == "semi_autoregressive"
    for words in ("differ before", "parallel heads", "without glancing", "k = 1 over k = 3", "trees of 24"):
        assert sum(words in check.clause for check in small.checks) == 1, words
    assert small.checks[0].passed


def test_played_rounds_are_those_of_the_real_loop(world) -> None:
    engine, some = world
    network = begin(engine, some[:8], FalconRecipe(kept=1))
    for tree, nodes in ((True, 24), (False, 6)):
        drafter = SemiAutoregressiveDrafter(engine, network, tree=tree)
        one = some[9]
        (played,) = play(engine, drafter, [one], 24, 6)
        assert played.rounds > 5 and played.shown == nodes * played.rounds
        (found,), rounds = semi_autoregressive.written_again(engine, drafter, [one])
        assert found == one.tokens
        left = rounds.looks - 1 - played.rounds  # the loop reads the prompt's last state, and goes on to the end
        assert 0 <= left <= 6 and sum(played.accepted) <= rounds.accepted <= sum(played.accepted) + 6


def test_following_takes_the_path_of_the_text() -> None:
    draft = Draft(Tree((5, 6, 7, 8), (-1, -1, 1, 2)))
    assert followed(draft, (6, 7, 9)) == [1, 2] and followed(draft, (6, 7, 8)) == [1, 2, 3]
    assert followed(draft, (9,)) == [] and followed(Draft(), (1, 2)) == []


def test_heads_start_as_least_squares(world) -> None:
    engine, some = world
    network = begin(engine, some, FalconRecipe(kept=1))
    heads = ParallelHeads(network, 2)
    states = torch.cat([one.hidden[:-2].float() for one in some])
    goal = torch.cat([one.hidden[2:].float() for one in some])
    before = (heads(states)[:, 1] - goal).square().mean()
    heads.start(some)
    assert (heads(states)[:, 1] - goal).square().mean() < before
    drafter = ParallelDrafter(engine, heads)
    played = play(engine, drafter, some[:3], 5, 2)
    assert len(played) == 3 and all(one.shown == 5 * one.rounds for one in played)
