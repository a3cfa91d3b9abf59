"""A miniature of masked motions: edits keep the tokens they are told to keep; row 143's experiment has its clauses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anystep import UsageError
from anystep.diffusion import MaskedMotionModel
from anystep.diffusion.masked import MaskedRecipe, Shape, sample
from anystep.diffusion.masked.motion import (
    ARMS,
    COLUMNS,
    LEGS,
    LENGTH,
    PARTS,
    MotionRecipe,
    masked_motion_model,
)
from anystep.diffusion.masked.motions import FRAMES, JOINTS, LABELS, acceleration, motions
from anystep.diffusion.masked.tokenizer import TokenizerRecipe
from anystep.diffusion.models.digit_flow import DigitRecipe
from anystep.diffusion.models.digit_net import Shape as NetShape
from anystep.experiments import masked_motion as experiment
from anystep.testing import check_process

CLASSES = len(LABELS)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MaskedMotionModel:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    return masked_motion_model(tiny())


def tiny() -> MotionRecipe:
    small = TokenizerRecipe((1, COLUMNS), 18, codes=8, depth=4, width=16, updates=20, batch=8)
    masked = MaskedRecipe(Shape(LENGTH, 8, CLASSES, width=16, layers=1, heads=2), updates=4, batch=4, corrupt=0.5)
    return MotionRecipe(16, 1, small, masked)


def test_motions_are_smooth_and_their_own() -> None:
    some = motions(16, seed=3)
    assert some.angles.shape == (16, FRAMES, JOINTS) and some.labels.tolist() == 2 * list(range(CLASSES))
    assert np.array_equal(motions(16, seed=3).angles, some.angles)
    assert not np.array_equal(motions(16, seed=4).angles, some.angles)
    assert acceleration(some.angles).shape == (16, FRAMES - 2)
    assert np.allclose(acceleration(np.arange(FRAMES)[None, :, None] * np.ones(JOINTS)), 0)  # an even pace has none
    wave, squat = (some.angles[LABELS.index(name)] for name in ("wave", "squat"))
    assert np.ptp(wave[:, :6], 0).max() > 0.5 > np.ptp(wave[:, 6:], 0).max()  # a wave leaves the legs alone
    assert np.ptp(squat[:, [7, 9]], 0).min() > 0.5


def test_its_process_is_lawful(model: MaskedMotionModel) -> None:
    check_process(model.process("kick", steps=2))
    assert model.process("kick").condition == LABELS.index("kick")


def test_edits_keep_the_tokens_that_are_not_masked(model: MaskedMotionModel) -> None:
    tokens = model.tokens(motions(8, seed=5).angles)
    before = tokens.reshape(-1, COLUMNS, PARTS)
    filled = model.between(tokens, 4, 9, steps=3).reshape(-1, COLUMNS, PARTS)
    assert filled[:, :4].equal(before[:, :4]) and filled[:, 9:].equal(before[:, 9:])
    assert not filled[:, 4:9].equal(before[:, 4:9]) and (filled < 8).all()
    edited = model.part(tokens, ARMS, [3] * 8, steps=3)
    rows = edited.reshape(-1, COLUMNS, PARTS)
    assert rows[..., LEGS].equal(before[..., LEGS]) and not rows[..., ARMS].equal(before[..., ARMS])
    assert np.array_equal(model.angles(edited)[..., 6:], model.angles(tokens)[..., 6:])


def test_long_sequences_change_at_their_seams_alone(model: MaskedMotionModel) -> None:
    parts = [sample(model.process(i, steps=2), 3, seed=i).tokens for i in range(3)]
    joined, filled = (model.long(parts, seam).reshape(3, -1, PARTS) for seam in (0, 2))
    changed = (joined != filled).any(-1).any(0).nonzero().flatten().tolist()
    assert changed and set(changed) <= {14, 15, 16, 17, 30, 31, 32, 33}
    assert model.angles(filled.flatten(1)).shape == (3, 3 * FRAMES, JOINTS)


def test_it_refuses_what_it_does_not_know(model: MaskedMotionModel) -> None:
    tokens = model.tokens(motions(2).angles)
    with pytest.raises(UsageError, match="one of walk"):
        model.process("moonwalk")
    with pytest.raises(UsageError, match="columns and parts"):
        model.fill(tokens, np.ones((3, PARTS), dtype=bool))


def test_the_experiment_of_row_143_runs_on_miniature_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    rival = experiment.Rival(DigitRecipe(shape=NetShape(24, 8, 8, 1, 8, CLASSES), updates=3, batch=8))
    options = {"each": 2, "seeds": 2, "edited": 16, "learn": 3, "studied": 64}
    result = experiment.run(recipe=tiny(), rival=rival, progress=lambda line: None, **options)
    assert result.row == 143 and len(result.checks) == 11
    found = {c.clause: c.value for c in result.checks}
    assert found["autoregressive passes over ours"] == 4.0
    assert sum(found[clause] == 1.0 for clause in found if "that are unchanged" in clause) == 3
    assert "spread order" in result.notes and "Heun" in result.notes
