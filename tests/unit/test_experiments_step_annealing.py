"""Row 191's experiment, small: every clause has its check, and the arms spend what they say."""

from __future__ import annotations

import torch

from anystep.diffusion.models import PatchFlow, PatchRecipe, PatchShape
from anystep.diffusion.models.patch_digits import untrained
from anystep.experiments import step_annealing
from anystep.experiments._figures import held
from anystep.experiments.step_annealing import ANNEALED, BASE, EVEN, plans, spread

SMALL = PatchRecipe(shape=PatchShape(body=16, body_blocks=1, told=4, head=8, head_blocks=1))


def model() -> PatchFlow:
    net = untrained(SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_(net.leave.weight)
    return PatchFlow(net)


def test_it_has_a_check_for_every_clause(monkeypatch) -> None:  # noqa: ANN001
    monkeypatch.setattr(step_annealing, "digits_conditions", lambda: [0, 1, 2] * 20)
    few = {BASE: 4, ANNEALED: step_annealing.step_annealing(4, 1), EVEN: 2, step_annealing.REVERSED: 2}
    monkeypatch.setattr(step_annealing, "plans", lambda model, iterations: few)
    found = step_annealing.run(model=model(), copies=1, seeds=1, resamples=4, states=2, progress=lambda line: None)
    assert found.row == 191 and len(found.checks) == 7
    for words in ("head evaluations", "constant 50's", "equal total", "reversed", "variance", "curvature"):
        assert any(words in check.clause for check in found.checks), words
    assert "second order" in found.notes and "one patch a step" in found.notes


def test_the_constant_arm_is_no_cheaper_than_annealing() -> None:
    found = plans(model(), step_annealing.GROUPED)
    assert found[EVEN] == 25  # 398 head evaluations by annealing, 400 by 25 for each of sixteen patches
    assert plans(model(), None)[EVEN] == 28


def test_an_interval_is_around_the_value() -> None:
    figure = spread([1.0, 3.0, 3.5, 4.0])
    assert figure.low < 1.0 < figure.high and held("", figure, "<", 2.0).passed
