"""Gaussian processes against scipy's normal and scikit-learn's regressor, on data without symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from anystep.bayes.covariance import RBF, Matern
from anystep.bayes.gaussian_process import GaussianProcess, fit
from anystep.errors import UsageError

LENGTHS, VARIANCE, NOISE, MEAN = [0.3, 1.1, 4.0], 1.7, 0.05, 0.6
THEIRS = {
    "rbf": (RBF, {}, kernels.RBF(LENGTHS)),
    "matern32": (Matern, {"nu": 1.5}, kernels.Matern(LENGTHS, nu=1.5)),
    "matern52": (Matern, {"nu": 2.5}, kernels.Matern(LENGTHS, nu=2.5)),
}


def data(n=17, batch=(), seed=3):
    r = np.random.default_rng(seed)
    x = r.gamma(1.5, size=(*batch, n, 3))  # skewed
    return x, np.sin(3 * x[..., 0]) + np.exp(-x[..., 1]) * x[..., 2] + 0.1 * r.standard_normal((*batch, n))


def process(name):
    kind, options, _ = THEIRS[name]
    return GaussianProcess(kind(torch.tensor(LENGTHS, dtype=torch.float64), VARIANCE, **options), NOISE, MEAN)


def oracle(name):
    x, y = data()
    kernel = kernels.ConstantKernel(VARIANCE) * THEIRS[name][2]
    return GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None).fit(x, y - MEAN)


@pytest.mark.parametrize("name", THEIRS)
def test_predictions_and_evidence_are_scikit_learns(name):
    x, y = data()
    new = data(9, seed=4)[0]
    theirs, ours = oracle(name), process(name).given(x, y)
    mean, covariance = theirs.predict(new, return_cov=True)
    np.testing.assert_allclose(ours.predict(new)[0], mean + MEAN, atol=1e-9)
    np.testing.assert_allclose(ours.covariance(new), covariance, atol=1e-9)
    np.testing.assert_allclose(ours.predict(new)[1], np.diag(covariance), atol=1e-9)
    np.testing.assert_allclose(ours.predict(new, noisy=True)[1], np.diag(covariance) + NOISE, atol=1e-9)
    np.testing.assert_allclose(ours.log_evidence, theirs.log_marginal_likelihood_value_, atol=1e-8)


@pytest.mark.parametrize("name", THEIRS)
def test_evidence_is_the_normal_density_and_prediction_its_conditional(name):
    x, y = data()
    p, new = process(name), data(4, seed=5)[0]
    both = np.concatenate([x, new])
    k = p.kernel(torch.tensor(both)).numpy() + NOISE * np.eye(len(both))
    log = p.log_evidence(x, y)
    np.testing.assert_allclose(log, multivariate_normal(np.full(17, MEAN), k[:17, :17]).logpdf(y), atol=1e-8)
    values = np.array([0.1, -1.0, 2.0, 0.4])
    apart = multivariate_normal(np.full(21, MEAN), k).logpdf(np.concatenate([y, values])) - log.item()
    posterior = p.given(x, y)
    mine = multivariate_normal(posterior.predict(new)[0], posterior.covariance(new) + NOISE * np.eye(4))
    assert mine.logpdf(values) == pytest.approx(apart, abs=1e-8)


def test_a_batch_is_its_members():
    x, y = data(batch=(2, 3))
    lengths = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)).double() + 0.2
    variance, noise = torch.tensor([[1.0, 2, 3], [0.5, 4, 1]]), torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.01, 0.02]])
    new = data(5, (4, 2, 3), seed=8)[0]  # four sets of points for each
    posterior = GaussianProcess(Matern(lengths, variance), noise, noise * 3).given(x, y)
    mean, var = posterior.predict(new)
    drawn = posterior.sample(new, 6, seed=1)
    assert mean.shape == (4, 2, 3, 5) and drawn.shape == (6, 4, 2, 3, 5)
    for i, j in np.ndindex(2, 3):
        alone = GaussianProcess(Matern(lengths[i, j], variance[i, j]), noise[i, j], noise[i, j] * 3).given(
            x[i, j], y[i, j]
        )
        np.testing.assert_allclose(alone.log_evidence, posterior.log_evidence[i, j])
        np.testing.assert_allclose(alone.predict(new[2, i, j])[0], mean[2, i, j], atol=1e-12)
        np.testing.assert_allclose(alone.predict(new[2, i, j])[1], var[2, i, j], atol=1e-12)
        np.testing.assert_allclose(alone.sample(new[2, i, j], 6, seed=1), drawn[:, 2, i, j], atol=1e-6)


@pytest.mark.parametrize("given", [False, True])
def test_draws_have_the_mean_and_covariance(given):
    """20,000 draws; the largest of 30 deviations in standard errors stays below 5 (false alarm below 2e-5)."""
    x, y = data()
    new, p = data(5, seed=6)[0], process("matern32")
    source = p.given(x, y) if given else p
    drawn = source.sample(new, 20_000, seed=2)
    mean, covariance = (
        (p.given(x, y).predict(new)[0], p.given(x, y).covariance(new)) if given else (MEAN, p.kernel(torch.tensor(new)))
    )
    rest = drawn - mean
    sd = covariance.diagonal().sqrt()
    assert ((rest.mean(0) / sd).abs() * 20_000**0.5).max() < 5
    errors = torch.einsum("ni,nj->ij", rest, rest) / 20_000 - covariance
    assert (errors / torch.sqrt((covariance**2 + sd[:, None] ** 2 * sd**2) / 20_000)).abs().max() < 5


@pytest.mark.parametrize("name", ["rbf", "matern52"])
def test_fit_finds_the_evidence_that_scikit_learn_finds(name):
    x, y = data(40)
    y = (y - y.mean()) / y.std()
    kind, options, theirs = THEIRS[name]
    theirs = theirs.clone_with_theta(np.zeros(3))
    theirs.length_scale_bounds = (0.02, 50.0)
    kernel = kernels.ConstantKernel(1.0, (0.02, 50.0)) * theirs + kernels.WhiteKernel(0.01, (1e-6, 1.0))
    best = GaussianProcessRegressor(kernel, alpha=0.0, n_restarts_optimizer=4, random_state=0).fit(x, y)
    ours = fit(x, y, kind(torch.ones(3), **options), mean=0.0)
    assert ours.log_evidence(x, y).item() > best.log_marginal_likelihood_value_ - 0.01


def test_a_batched_fit_is_the_fits_of_its_members():
    x, y = data(12, (3,))
    together = fit(x, y, RBF(torch.ones(3)), restarts=3, updates=30)
    for i in range(3):
        alone = fit(x[i], y[i], RBF(torch.ones(3)), restarts=3, updates=30)
        np.testing.assert_allclose(alone.kernel.lengthscale, together.kernel.lengthscale[i], rtol=1e-6)
        np.testing.assert_allclose(alone.mean, together.mean[i], rtol=1e-6)


def test_what_is_held_stays_and_the_mean_is_the_best():
    x, y = data(12)
    held = fit(x, y + 7, RBF(torch.ones(1)), noise=0.02, updates=30)
    assert held.noise == 0.02 and held.kernel.lengthscale.shape == (1,)
    for other in (-0.01, 0.01):
        moved = GaussianProcess(held.kernel, held.noise, held.mean + other)
        assert moved.log_evidence(x, y + 7) < held.log_evidence(x, y + 7)


def test_draws_bend_smoothly_with_the_place():
    x, y = data()
    place = torch.tensor(data(2, seed=9)[0], requires_grad=True)
    process("matern52").given(x, y).sample(place, 3).sum().backward()
    assert torch.isfinite(place.grad).all() and place.grad.abs().sum() > 0


def test_no_data_is_the_prior():
    new = data(4)[0]
    mean, variance = process("rbf").given(np.zeros((0, 3)), np.zeros(0)).predict(new)
    np.testing.assert_allclose(mean, MEAN)
    np.testing.assert_allclose(variance, VARIANCE)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: RBF(torch.tensor([-1.0])), "positive"),
        (lambda: Matern(torch.ones(1), nu=2.0), "1.5 or 2.5"),
        (lambda: GaussianProcess(RBF(torch.ones(1)), -1.0), "not negative"),
        (lambda: process("rbf").given(np.zeros((3, 3)), np.zeros(4)), "(..., n, d)"),
        (lambda: process("rbf").given(np.zeros((1, 3)), [np.nan]), "finite"),
        (lambda: process("rbf").given(*data()).predict(np.zeros((3, 2))), "(..., m, 3)"),
        (lambda: GaussianProcess(RBF(torch.ones(1)), 0.0).given(np.zeros((2, 1)), np.zeros(2)), "noise"),
        (lambda: fit(*data(), RBF(torch.ones(3)), restarts=0), "restarts"),
    ],
)
def test_misuse_is_told(call, says):
    with pytest.raises(UsageError) as told:
        call()
    assert says in str(told.value) and "\n" not in str(told.value)
