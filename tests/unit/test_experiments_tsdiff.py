"""Row 79's experiment, small, with networks that were not trained: every clause has its check."""

from __future__ import annotations

from dataclasses import replace

import torch

from anystep.diffusion import Flow, Network
from anystep.diffusion.series.net import SeriesRecipe, train, untrained
from anystep.experiments import tsdiff

SMALL = SeriesRecipe(width=16, blocks=1, windows=200, updates=120, batch=64)


def test_it_has_a_check_for_every_clause() -> None:
    model = Network(untrained(SMALL), Flow(), (36,), name="series")
    found = tsdiff.run(
        model=model, conditional=untrained(replace(SMALL, shown=24)), windows=4, samples=3, steps=12, synthetic=60,
        progress=lambda line: None,
    )  # fmt: skip
    assert found.row == 79 and len(found.checks) == 6
    for words in ("conditional", "naive", "imputation", "refined", "evaluations", "made-up"):
        assert any(words in check.clause for check in found.checks), words


def test_a_miniature_recipe_learns() -> None:
    net, cost = train(SMALL)
    clean = torch.from_numpy(SMALL.data.draw(300, 9)).float()
    t, noise = torch.full((300,), 0.7), torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (
            ((n(0.3 * clean + 0.7 * noise, t) - (noise - clean)) ** 2).mean() for n in (untrained(SMALL), net)
        )
    assert after < 0.95 * before and cost.examples == 120 * 64
