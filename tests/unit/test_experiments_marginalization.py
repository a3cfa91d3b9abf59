"""Row 217's experiment, small: every clause has its check, and what it measures with is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anystep.bayes.amortised import DataRecipe, MarginalizationModel, Stage
from anystep.bayes.amortised.marginalization_net import untrained
from anystep.experiments import marginalization_models as experiment
from anystep.experiments._ising import Ising
from anystep.experiments._marginals import BOARD, DIGITS, GLYPHS, Sizes, shorter


def test_it_has_a_check_for_every_clause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(experiment, "divergence", lambda ising, model, order=(): 0.5)  # seconds each; tested below
    found = experiment.run(
        sizes=Sizes(energy=11, ablation=10, data=11, rows=300), digits=shorter(DIGITS, 10), n=40, draws=300, repeats=2,
        progress=lambda line: None,
    )  # fmt: skip
    assert found.row == 217 and len(found.checks) == 12
    for words in ("log-marginals", "residual", "reverse KL", "any-order", "three sites", "persistent", "time of"):
        assert any(words in check.clause for check in found.checks), words


def test_a_divergence_is_of_the_enumerated_law() -> None:
    """An untrained model is uniform: its divergence is a mean of log-probabilities, along any
    order."""
    ising, model = Ising(seed=1), MarginalizationModel(untrained(BOARD, 0))
    uniform = -16 * np.log(2) - ising.log_p.mean()
    assert experiment.divergence(ising, model, tuple(range(15, -1, -1))) == pytest.approx(uniform, abs=1e-4)


def test_the_ising_law_is_the_one_by_loops() -> None:
    ising = Ising(2, 2, seed=3)
    couplings, fields = ising.drawn
    pairs = [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert {(i, j) for i, j in np.argwhere(couplings).tolist()} == set(pairs)
    weights = []
    for state in ising.states:
        s = 2 * state - 1
        weights.append(np.exp(sum(couplings[i, j] * s[i] * s[j] for i, j in pairs) + fields @ s))
    assert np.allclose(np.exp(ising.log_p), np.array(weights) / np.sum(weights))
    mask = np.array([[True, False, False, True]])
    wanted = sum(w for w, s in zip(weights, ising.states, strict=True) if s[0] == 1 and s[3] == 0) / sum(weights)
    assert ising.log_marginal(np.array([[1, 0, 0, 0]]), mask)[0] == pytest.approx(np.log(wanted))


def test_recipes_fit_what_they_learn_from() -> None:
    assert GLYPHS.length == 64 and BOARD.length == 16
    assert DataRecipe(BOARD, Stage(3), Stage(4)) != DataRecipe(BOARD, Stage(4), Stage(3))
