"""Rewards from any labels: the loss where less is known, what is refused, and the outcome reward as a reward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anystep import Ledger, Limit, search, solve, verify
from anystep.calibrate import states_of
from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.train import labelled
from anystep.language.train.chainlm import shape
from anystep.language.train.grove import UNLABELLED, WRONG, Labelled, label, plant
from anystep.language.train.labelled import OutcomeRecipe, ends_labelled, outcomes, steps_labelled
from anystep.language.train.reward import Fitting, StepReward, loss_of, step_reward, unlikeliness
from anystep.tasks.chains import Alphabet, Verdict
from anystep.testing import check_reward
from anystep.testing.counting import counted_torch

PROMPT, GOOD, BAD = "C1 9 4>37?", "9*4=36\n36+1=37.", "9-4=5\n5-1=4."
SMALL = Fitting(tokens=600, groups=2, micro=1, each=2, warm_steps=1)


def test_a_label_without_a_name_is_any_but_right() -> None:
    logs = torch.randn(5, len(Verdict)).log_softmax(-1)
    labels = torch.tensor([int(Verdict.RIGHT), int(Verdict.DOOMED), WRONG, UNLABELLED, WRONG])
    p = logs[:, Verdict.RIGHT].exp()
    expected = [-logs[0, 0], -logs[1, Verdict.DOOMED], -(1 - p[2]).log(), torch.tensor(0.0), -(1 - p[4]).log()]
    assert unlikeliness(logs, labels).tolist() == pytest.approx([e.item() for e in expected], abs=1e-5)


def test_groups_say_what_is_known() -> None:
    right, wrong = int(Verdict.RIGHT), WRONG
    assert steps_labelled(PROMPT, [GOOD, BAD], [[True, None], [False, False]]) == Labelled(
        PROMPT, [GOOD, BAD], [(right, UNLABELLED), (wrong, wrong)]
    )
    assert ends_labelled(PROMPT, [GOOD, BAD], [True, False]).verdicts == [(UNLABELLED, right), (UNLABELLED, wrong)]
    assert ends_labelled(PROMPT, [GOOD, BAD], [True, False], "every").verdicts == [(right, right), (wrong, wrong)]
    for chain, labels in ((GOOD, [True]), ("9*4=36\n", [True])):
        with pytest.raises(UsageError, match="a finished chain and a label for each"):
            steps_labelled(PROMPT, [chain], [labels])
    with pytest.raises(UsageError, match="no group has a chain"):
        labelled.train([Labelled(PROMPT, [], [])], SMALL)


def test_steps_without_a_label_teach_nothing_but_writing() -> None:
    """With nothing known and no writing the loss is zero; the named labels' loss is what it was."""
    torch.manual_seed(0)
    model = StepReward(shape("1m"), Alphabet())
    unknown = plant([Labelled(PROMPT, [GOOD, BAD], [(UNLABELLED,) * 2] * 2)], Alphabet())
    assert loss_of(model, unknown, Fitting(writer=0.0)).item() == 0.0
    legal = loss_of(model, unknown, Fitting(writer=1.0)).item()
    written = model(unknown)[1][unknown.step >= 0].sum().item()
    assert legal == pytest.approx(-written, rel=1e-5)
    named = plant([label(PROMPT, [GOOD])], Alphabet())
    known = loss_of(model, named, Fitting(writer=0.0, pairs=0.0)).item()
    assert known == pytest.approx(-model(named)[0][:, Verdict.RIGHT].sum().item(), rel=1e-5)


def test_it_fits_labels_that_contradict_the_checker() -> None:
    """Whoever labels is believed: with labels turned round, the right chain comes out the worse."""
    recipe = Fitting(tokens=6_000, groups=4, micro=1, each=2, warm_steps=2)
    group = steps_labelled(PROMPT, [GOOD, BAD], [[False, False], [True, True]])
    model, cost = labelled.train([group], recipe)
    good, bad = model.probabilities([PROMPT + GOOD, PROMPT + BAD])
    assert good[-1] < 0.2 < 0.8 < bad[-1] and cost.tokens >= recipe.tokens
    again, _ = labelled.train([group], recipe)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.fixture(scope="module")
def card(tmp_path_factory: Any) -> Any:
    """A miniature outcome reward."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ANYSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    recipe = OutcomeRecipe(tokens=1_000, own=6, drawn=2, strayed=2, groups=4, micro=1)
    groups = outcomes(recipe)
    assert {len(set(v)) for g in groups for v in g.verdicts} == {1}  # "every": one label a chain
    path = labelled.outcome_reward(recipe, lambda _: None)
    assert labelled.outcome_reward(recipe, lambda _: None) == path
    yield path
    patch.undo()


def test_the_outcome_reward_is_a_reward(card: Path) -> None:
    reward = verify.chain_outcome(card)
    begun = [(PROMPT, GOOD), (PROMPT, BAD), ("A48-2-9?", "48-2=46\n46-9"), ("Pq>d:qg,gd?", "qg\ngd.")]
    bare = Engine(reward.engine.model, reward.engine.tokenizer, cache_bytes=1)  # keeps nothing: each call pays
    check_reward(
        replace(reward, engine=bare), states_of(begun, bare.tokenizer), lambda: counted_torch(bare.model)
    )  # fmt: skip
    states = states_of([(PROMPT, GOOD), (PROMPT, BAD), (PROMPT, "9*4"), (PROMPT, "")], reward.engine.tokenizer)
    found = reward(states, Limit(Ledger(), "test")).values
    read = step_reward(card.stem, card.parent).probabilities([PROMPT + GOOD, PROMPT + BAD])
    assert found[:2].tolist() == pytest.approx([steps[-1] for steps in read], abs=1e-4)
    assert found[2:].tolist() == [0.5, 0.5]  # no step is finished


@pytest.mark.parametrize("method", ["best_of_n", "beam", "particle_filter"])
def test_it_serves_in_every_procedure(card: Path, method: str) -> None:
    reward = verify.chain_outcome(card)
    reward.forget()  # else what an earlier case has read is free
    made = {
        "best_of_n": lambda: search.best_of_n(n=3, reward=reward),
        "beam": lambda: search.beam(width=2, branch=2, reward=reward),
        "particle_filter": lambda: search.particle_filter(n=3, potential=reward.log_odds()),
    }[method]()
    answer = solve(PROMPT, model="chainlm-2m", method=made, seed=1)
    assert answer.costs[reward.name].prompt > 0 and np.isfinite(answer.cost.tokens)


def test_a_step_reward_of_ones_own_is_read_by_its_card(card: Path) -> None:
    assert verify.chain_steps(card, "last").engine is verify.chain_outcome(card).engine
