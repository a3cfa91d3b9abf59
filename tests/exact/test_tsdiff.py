"""Windows of a known Gaussian law under its exact denoiser: guidance by observations, refining, synthesis."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion import VP, DiffusionProcess, TSDiff, sample
from anystep.diffusion.series import ObservationGuided, Seasonal, crps, ridge
from anystep.diffusion.solvers import DDIM, DPMpp2M
from anystep.testing import check_process, counted

DATA = Seasonal(length=8, period=4)
SEEN = np.arange(8) < 5


def hidden(windows: np.ndarray) -> np.ndarray:
    return np.where(SEEN, windows, np.nan)


def test_draws_and_given_are_the_law() -> None:
    windows = DATA.draw(20_000, 0)
    assert np.abs(np.cov(windows.T) - DATA.covariance).max() < 5 * 2 * 1.3 / 20_000**0.5
    mean, covariance = DATA.given(windows, SEEN)
    np.testing.assert_allclose(mean[:, SEEN], windows[:, SEEN], atol=1e-8)
    gaps = (windows - mean)[:, ~SEEN]
    assert np.abs(np.cov(gaps.T) - covariance[np.ix_(~SEEN, ~SEEN)]).max() < 5 * 2 * 0.5 / 20_000**0.5


def test_crps_is_the_gaussians_and_the_absolute_error_of_one_sample() -> None:
    rng = np.random.default_rng(0)
    found = crps(rng.standard_normal((200, 400, 1)), np.zeros((200, 1))).mean()
    # Of a standard normal at its centre: sqrt(2 / pi) - 1 / sqrt(pi).
    assert abs(found - ((2 / np.pi) ** 0.5 - 1 / np.pi**0.5)) < 5 * 0.02 / 200**0.5
    samples, truth = rng.standard_normal((3, 7, 2)), rng.standard_normal((3, 2))
    pairs = np.abs(samples[:, :, None] - samples[:, None]).mean((1, 2)) / 2
    np.testing.assert_allclose(crps(samples, truth), (np.abs(samples - truth[:, None]).mean(1) - pairs).mean(-1))
    np.testing.assert_allclose(crps(samples[:, :1], truth), np.abs(samples[:, 0] - truth).mean(-1))


def test_ridge_is_the_best_linear_forecaster_with_much_data() -> None:
    windows = DATA.draw(50_000, 1)
    k = DATA.covariance
    np.testing.assert_allclose(
        ridge(windows, SEEN, 0.0), np.linalg.solve(k[np.ix_(SEEN, SEEN)], k[np.ix_(SEEN, ~SEEN)]), atol=0.05
    )


@pytest.mark.parametrize("loss", ["square", "quantile"])
def test_guidance_is_the_gradient_of_its_loss(loss: str) -> None:
    model, x = DATA.denoiser(VP()), torch.from_numpy(DATA.draw(6, 2))
    guided = ObservationGuided(model, hidden(DATA.draw(2, 3)), 3, 0.7, loss)
    t, condition = torch.full((6,), 0.3, dtype=torch.float64), torch.arange(6)
    found, step = guided(x, t, condition), 1e-6
    alpha, sigma = float(VP().alpha(0.3)), float(VP().sigma(0.3))
    for place in range(8):
        moved = torch.zeros(8, dtype=torch.float64)
        moved[place] = step
        ends = [guided.losses(model(x + s * moved, t, torch.full((6,), -1)), condition) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        wanted = model(x, t, torch.full((6,), -1))[:, place] - 0.7 * sigma**2 / alpha * slope
        torch.testing.assert_close(found[:, place], wanted, rtol=1e-5, atol=1e-5)


def test_a_guided_model_is_lawful_and_counted() -> None:
    guided = ObservationGuided(DATA.denoiser(VP()), hidden(DATA.draw(2, 3)), 2, 1.0)
    check_process(DiffusionProcess(guided, DDIM(3, eta=1.0), condition=1), lambda: counted_threefold(guided))


def counted_threefold(guided: ObservationGuided):  # noqa: ANN201
    """The hook sees forward passes; a backward one counts as two more."""
    from contextlib import contextmanager

    @contextmanager
    def watching():  # noqa: ANN202
        with counted(guided.model) as work:
            yield (proxy := type("Work", (), {"evaluations": 0, "calls": 0})())
            proxy.evaluations, proxy.calls = 3 * work.evaluations, 3 * work.calls

    return watching()


def test_guidance_off_is_the_model() -> None:
    model = DATA.denoiser(VP())
    off = ObservationGuided(model, hidden(DATA.draw(1, 3)), 4, 0.0)
    one, other = sample(off, DDIM(5), 4, condition=range(4)), sample(model, DDIM(5), 4)
    torch.testing.assert_close(one.x, other.x)


def test_samples_of_a_window_keep_near_what_was_seen_and_spread_in_order() -> None:
    windows = DATA.draw(4, 5)
    made = TSDiff(DATA.denoiser(VP()), scale=8.0).predict(hidden(windows), samples=20, solver=DDIM(40, eta=1.0))
    near = np.abs(made.values - windows[:, None])[:, :, SEEN].mean()
    free = np.abs(sample(DATA.denoiser(VP()), DDIM(40), 80).x.numpy().reshape(4, 20, 8) - windows[:, None]).mean()
    assert near < 0.25 * free
    # Aimed at higher quantiles, later samples are higher where something was seen.
    assert (made.values[:, 15:, SEEN].mean((1, 2)) > made.values[:, :5, SEEN].mean((1, 2))).all()
    assert made.cost.evaluations == 3 * 40 * 80


def test_refining_a_poor_forecast_lowers_its_score_for_three_evaluations_an_iteration() -> None:
    windows = DATA.draw(40, 6)
    base = np.repeat(np.where(SEEN, windows, 0.0)[:, None], 9, 1)
    made = TSDiff(DATA.denoiser(VP()), scale=0.1).refine(hidden(windows), base, rate=0.05)
    truth = windows[:, ~SEEN]
    assert crps(made.values[:, :, ~SEEN], truth).mean() < 0.9 * crps(base[:, :, ~SEEN], truth).mean()
    assert made.cost.evaluations == 3 * 10 * 40 * 9


def test_synthesised_windows_have_the_law() -> None:
    made = TSDiff(DATA.denoiser(VP())).synthesise(4000, DPMpp2M(20))
    # An entry of a covariance of n Gaussian windows spreads by at most sqrt(2 / n) times the largest variance, 1.25.
    assert np.abs(np.cov(made.values[:, 0].T) - DATA.covariance).max() < 5 * (2 / 4000) ** 0.5 * 1.25


@pytest.mark.parametrize("options", [{"samples": 0}, {"scale": np.inf}, {"loss": "absolute"}], ids=str)
def test_what_cannot_be_is_said(options: dict) -> None:
    with pytest.raises(UsageError, match="ObservationGuided"):
        ObservationGuided(DATA.denoiser(), hidden(DATA.draw(1, 3)), **options)
