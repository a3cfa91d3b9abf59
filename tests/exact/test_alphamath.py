"""AlphaMath's training in miniature: what trees find, what the loss sees, and what the value reads and pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anystep import Run, UsageError, drive, search, verify
from anystep.experiments import alphamath as experiment
from anystep.language.train.alphamath import AlphaRecipe, Found, alphamath, begun, fit, load, loss_of
from anystep.language.train.alphamath import search as searched
from anystep.solve import process_for
from anystep.tasks.chains import CHAIN_END, STEP_END, chains, family_of

MINI = AlphaRecipe(rounds=2, prompts=3, simulations=4, tokens=400, groups=2)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return alphamath(MINI, say=lambda line: None)


def test_trees_give_solutions_with_a_value_for_each_step() -> None:
    found = searched(begun(MINI), ["C1 9 4>37?", "A48-2-9?"], replace(MINI, simulations=12), False, 3)
    assert [f.prompt for f in found] == ["C1 9 4>37?", "A48-2-9?"]
    for f in found:
        assert len(set(f.chains)) == len(f.chains) and f.chains
        for chain, values, right in zip(f.chains, f.values, f.right, strict=True):
            assert right == family_of(f.prompt).score(f.prompt, chain) and values[-1] == right
            assert len(values) == sum(c in (STEP_END, CHAIN_END) for c in chain)
            assert all(0 <= v <= 1 for v in values)


def test_only_right_solutions_are_written_and_all_are_valued() -> None:
    right = Found("C1 9 4>37?", ("9*4=36\n36+1=37.",), ((0.75, 1.0),), (True,))
    both = Found(right.prompt, (*right.chains, "9-4=5\n5*1=5."), (*right.values, (0.25, 0.0)), (True, False))
    wrong = Found(right.prompt, both.chains[1:], both.values[1:], (False,))
    model = begun(MINI)
    with torch.no_grad():
        told = [float(loss_of(model, [f], 0.0)[0]) for f in (right, both, wrong)]
        valued = [float(loss_of(model, [f], 1.0)[0]) - t for f, t in zip((right, both, wrong), told, strict=True)]
    assert told[0] == pytest.approx(told[1], rel=1e-4) and told[2] == 0
    # A head that says nothing says 0 of everything, so the error is the mean of squared goals in [-1, 1].
    assert valued == pytest.approx([(0.25 + 1) / 2] * 3, rel=1e-3)


def test_the_value_reads_what_writing_left(cards: tuple[Path, ...]) -> None:
    engine, value = load(cards[-1])
    task = chains(1, "dev", 0, families="C")[0]
    run = Run(process_for(task, engine, temperature=1.0), search.step_beam(2, value, branch=3))
    (answer,) = drive(run)
    assert answer.population is not None
    read = run.ledger.by[value.name]
    scored = len(run.books.family.scores)
    assert read.generated == 0 and 0 < read.prompt <= scored, "a state's last token alone is new to the cache"
    engine.cache.trim(0)
    again = experiment.worth((engine, value), str(task.prompt), answer.population.states.texts())
    assert np.allclose(again, answer.population.scores, atol=1e-5)
    assert verify.chain_value(cards[-1]) == value


def test_a_value_refuses_another_model_s_states_and_none_at_all(cards: tuple[Path, ...]) -> None:
    value = load(cards[0])[1]
    from anystep.testing.oracles import EnumerableLM

    with pytest.raises(UsageError, match="on the engine it was trained with"):
        drive(Run(EnumerableLM(), search.step_beam(2, value)))
    with pytest.raises(UsageError, match="needs a value"):
        search.AlphaMath().beam()
    with pytest.raises(UsageError, match="no tree has a finished chain"):
        fit(begun(MINI), [Found("C1 9 4>37?", (), (), ())], MINI, 0)


def test_the_experiment_runs_from_end_to_end(cards: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "alphamath", lambda recipe, say: cards)
    result = experiment.run(0, lambda line: None, MINI, problems=4, searched=2, level=2, rollouts=40)
    assert result.row == 30 and len(result.checks) == 9
    exact = next(check for check in result.checks if "enumerable" in check.clause)
    assert exact.passed and exact.value < 0.02
