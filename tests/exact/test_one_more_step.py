"""One more step on Gaussian data, where what is lost without it and what it brings back are closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion import VP, Flow, sample
from anystep.diffusion.guidance import OneMoreStep
from anystep.diffusion.guidance.one_more_step import ToPureNoise
from anystep.diffusion.models import MixtureDenoiser, skewed
from anystep.diffusion.solvers import DDIM, Heun, Solver
from anystep.testing import assert_mean

SCHEDULE = VP(beta_max=4.0)  # alpha is 0.36 at its last time
MEAN, VARIANCE = 1.5, 0.8


def gaussian(schedule: VP | Flow) -> MixtureDenoiser:
    return MixtureDenoiser([1.0], [[MEAN]], [[[VARIANCE]]], schedule)


@pytest.mark.parametrize("solver", [Heun(20), DDIM(150)], ids=["Heun", "DDIM"])
def test_on_gaussian_data_mean_and_variance_are_the_closed_form(solver: Solver) -> None:
    model, n = gaussian(SCHEDULE), 500
    more = OneMoreStep(model, gaussian(Flow()))
    alpha, sigma = float(SCHEDULE.alpha(1.0)), float(SCHEDULE.sigma(1.0))
    total = alpha**2 * VARIANCE + sigma**2
    base, better = sample(model, solver, n).x[:, 0].numpy(), sample(more, more.solver(solver), n).x[:, 0].numpy()
    assert_mean(base, MEAN * (1 - alpha * np.sqrt(VARIANCE / total)))
    assert_mean(better, MEAN)
    for drawn in (base, better):
        assert_mean((drawn - drawn.mean()) ** 2 * n / (n - 1), VARIANCE * sigma**2 / total)
    assert abs(base.mean() - MEAN) > 0.3


def test_ancestral_steps_draw_the_paper_s_fresh_noise() -> None:
    """With no signal left, all of the noise that DDPM leaves is fresh: alpha_T E[x_0] + sigma_T eps'."""
    more = OneMoreStep(gaussian(SCHEDULE), gaussian(Flow()))
    steps = 80
    drawn = sample(more, more.solver(DDIM(steps, eta=1.0)), 500).x[:, 0].numpy()
    assert_mean(drawn, MEAN)
    same = sample(more, more.solver(DDIM(steps)), 500).x[:, 0].numpy()
    assert abs(np.corrcoef(drawn, same)[0, 1]) < 0.2


def test_it_costs_one_evaluation() -> None:
    model, first = gaussian(SCHEDULE), gaussian(Flow())
    more = OneMoreStep(model, first)
    cost = sample(more, more.solver(Heun(5)), 8).cost
    # Heun's first step is the one more, and asks the model at its end for the slope there.
    assert cost.evaluations == 8 * (2 * 6 - 1)
    assert sample(more, more.solver(DDIM(5)), 8).cost.evaluations == 8 * (5 + 1)


def test_the_schedule_goes_on_smoothly_to_pure_noise() -> None:
    longer = ToPureNoise(SCHEDULE)
    t = np.linspace(0.01, longer.last - 1e-6, 400)
    np.testing.assert_allclose(longer.time(longer.ratio(t)), t, atol=1e-6)
    step = 1e-6
    for values, rate in zip((longer.alpha, longer.sigma), longer.rates(t), strict=True):
        np.testing.assert_allclose((values(t + step) - values(t - step)) / (2 * step), rate, atol=1e-4)
    assert longer.alpha(longer.last) == 0 and longer.sigma(longer.last) == pytest.approx(1.0)
    inside = t[t <= 1]
    np.testing.assert_array_equal(longer.alpha(inside), SCHEDULE.alpha(inside))


def test_a_condition_that_the_model_never_saw_moves_its_samples() -> None:
    """The model takes no classes; the first step does, and the mean of each follows."""
    data = skewed(SCHEDULE)
    blind = MixtureDenoiser(data.weights, data.means, data.covariances, SCHEDULE, labels=[0, 0, 0])
    blind.classes = 0
    more = OneMoreStep(blind, skewed(Flow()))
    means = [sample(more, more.solver(DDIM(20)), 200, condition=c).x.mean(0) for c in (0, 1)]
    assert (means[0] - means[1]).norm() > 0.5


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="no signal left"):
        OneMoreStep(gaussian(Flow()), gaussian(Flow()))
    with pytest.raises(UsageError, match="shapes"):
        OneMoreStep(gaussian(SCHEDULE), skewed())
    more = OneMoreStep(gaussian(SCHEDULE), gaussian(Flow()))
    with pytest.raises(UsageError, match="more.solver"):
        sample(more, DDIM(50), 2)
    with pytest.raises(UsageError, match="OneMoreStep"):
        sample(gaussian(SCHEDULE), more.solver(DDIM(5)), 2)
    assert torch.isfinite(sample(more, more.solver(DDIM(1)), 2).x).all()
