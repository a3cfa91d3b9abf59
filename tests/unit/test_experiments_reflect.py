"""Row 226's experiment patch by patch, small: every clause has its check, and the arms spend what they say."""

from __future__ import annotations

import pytest
import torch

from anystep.diffusion.guidance import WeakRecipe
from anystep.diffusion.models import PatchFlow, PatchRecipe, PatchShape
from anystep.diffusion.models.patch_digits import untrained
from anystep.experiments import collect_reflect_refine as experiment


def test_it_has_a_check_for_every_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "STEPS", 4)
    net = untrained(PatchRecipe(shape=PatchShape(body=16, body_blocks=1, told=4, head=8, head_blocks=1)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in (net.leave.weight, *(block.told.weight for block in net.blocks)):
            torch.nn.init.normal_(weight, std=0.1)
    model = PatchFlow(net.requires_grad_(False))
    found, weak, share = experiment.patches(model, 0, 1, 2, WeakRecipe(width=4, updates=2))
    checks = [*experiment.exact_patches(model, weak, 0), *experiment.patch_clauses(found, share)]
    assert len(checks) == 13 and all(check.passed for check in checks[:3])
    ours = found["refined"][0]
    for other in experiment.EQUAL:
        assert found[other][0].evaluations >= ours.evaluations + 16 * experiment.STEPS * share, other
    assert found["weak alone"][0].evaluations == found["guidance"][0].evaluations / 2 == 16 * 5
