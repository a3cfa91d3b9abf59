"""DiffIER where the error of a step is known: on Gaussian data the guided field is linear."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from anystep import UsageError, keys
from anystep.diffusion import NULL, VE, VP, DiffusionProcess, Flow, Karras, Schedule, sample
from anystep.diffusion.guidance import ClassifierFree, DiffIER
from anystep.diffusion.models import MixtureDenoiser, skewed
from anystep.diffusion.solvers import DDIM


def line(schedule: Schedule | None = None) -> MixtureDenoiser:
    """One Gaussian on a line."""
    return MixtureDenoiser([1.0], [[0.5]], [[[0.36]]], schedule)


@pytest.mark.parametrize("schedule", [Flow(), VE(), VP()], ids=repr)
def test_no_iterations_are_ddim_to_the_bit(schedule: Schedule) -> None:
    guided = ClassifierFree(skewed(schedule), 4.0)
    for eta in (0.0, 1.0):
        plain, same = (
            sample(guided, s, 16, condition=1) for s in (DDIM(6, eta=eta), DiffIER(6, eta=eta, iterations=0))
        )
        assert plain.x.equal(same.x) and plain.cost == same.cost


def noise(model: MixtureDenoiser, n: int) -> torch.Tensor:
    """What `sample` starts from."""
    return DiffusionProcess(model, DDIM(1)).noise(keys.roots(0, (), np.arange(n)), np.full(n, NULL)).x


def test_one_iteration_solves_a_linear_step() -> None:
    """On a Gaussian the prediction is a line in x at each time, so x' = F(x') has a closed form."""
    steps, model = 5, line()
    found, plain = (sample(model, s, 64).x for s in (DiffIER(steps, iterations=1), DDIM(steps)))
    y = noise(model, 64)
    for t, then in itertools.pairwise(DDIM(steps).grid(model.schedule)):
        (at, slope), (at_then, slope_then) = _line(t), _line(then)
        share = then / t  # of x that a step on a flow keeps; the rest of it is the prediction
        clean = at + slope * y
        if then == 0:
            y = clean
        else:
            y = (share * y + (1 - share) / 2 * (clean + at_then)) / (1 - (1 - share) / 2 * slope_then)
    assert torch.allclose(found, y, atol=1e-10) and not torch.allclose(found, plain, atol=1e-2)


def _line(t: float) -> tuple[float, float]:
    """E[x_0 | x_t] on a flow to N(0.5, 0.36), as intercept and slope in x."""
    slope = (1 - t) * 0.36 / ((1 - t) ** 2 * 0.36 + t**2)
    return 0.5 - slope * (1 - t) * 0.5, slope


def test_solved_steps_are_of_second_order() -> None:
    """The probability-flow ODE ends, on a Gaussian, where the start standardised says."""
    model = line(VE(10.0))
    exact = 0.5 + 0.6 * (noise(model, 64) - 0.5) / np.sqrt(0.36 + model.schedule.prior**2)
    for make, order in ((DDIM, 1.0), (DiffIER, 2.0)):
        coarse, fine = ((sample(model, make(s, Karras()), 64).x - exact).abs().mean().item() for s in (64, 128))
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_it_comes_nearer_to_the_guided_path_of_many_steps(scale: float) -> None:
    guided = ClassifierFree(skewed(), scale)
    path = sample(guided, DDIM(400), 64, condition=1).x
    plain, better = ((sample(guided, s, 64, condition=1).x - path).norm(dim=1).mean() for s in (DDIM(20), DiffIER(20)))
    assert better < 0.5 * plain


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_gradients_through_guidance_are_counted(iterations: int) -> None:
    guided = ClassifierFree(skewed(), 3.0)
    cost = sample(guided, DiffIER(6, iterations=iterations), 2, condition=0).cost
    assert cost.evaluations == 2 * (2 * 6 + 6 * iterations * 5)


def test_negative_iterations_are_refused() -> None:
    with pytest.raises(UsageError, match="iterations"):
        DiffIER(5, iterations=-1)
