"""Mixtures against scipy, numerical integration and their own draws; nothing here is symmetric or diagonal."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from anystep.bayes import GaussianMixture
from anystep.errors import UsageError

WEIGHTS = [0.5, 0.3, 0.2]
MEANS = [[1.5, 0.2], [-1.2, -0.8], [0.1, 1.9]]
COVARIANCES = [[[0.3, 0.2], [0.2, 0.4]], [[0.5, -0.3], [-0.3, 0.35]], [[0.1, 0.02], [0.02, 0.2]]]
MIXTURE = GaussianMixture.of(WEIGHTS, MEANS, COVARIANCES)
MATRIX, NOISE = (
    np.array([[1.0, 0.4], [-0.3, 0.8], [0.2, -1.1]]),
    np.array([[0.6, 0.25, 0.1], [0.25, 0.4, -0.1], [0.1, -0.1, 0.5]]),
)
Y = np.array([0.4, -0.9, 1.3])


def density(x: np.ndarray) -> np.ndarray:
    """The mixture's, by scipy."""
    parts = zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    return sum(w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in parts)


def grid() -> tuple[np.ndarray, float]:
    """Points (n, 2) of the plane and the area of each."""
    axis = np.linspace(-6, 6, 241)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def test_density_mean_and_covariance() -> None:
    points, area = grid()
    p = density(points)
    assert np.allclose(MIXTURE.log_density(torch.tensor(points)).exp().numpy(), p, atol=1e-12)
    mean = (p[:, None] * points).sum(0) * area
    covariance = (p[:, None] * (points - mean)).T @ (points - mean) * area
    assert np.allclose(MIXTURE.mean.numpy(), mean, atol=1e-9)
    assert np.allclose(MIXTURE.covariance.numpy(), covariance, atol=1e-9)


def test_an_observation_is_bayes_rule_on_a_grid() -> None:
    points, area = grid()
    joint = density(points) * stats.multivariate_normal(np.zeros(3), NOISE).pdf(Y - points @ MATRIX.T)
    posterior, evidence = MIXTURE.observed(MATRIX, NOISE, torch.tensor(Y))
    assert float(evidence) == pytest.approx(np.log(joint.sum() * area), abs=1e-9)
    assert np.allclose(
        posterior.log_density(torch.tensor(points)).exp().numpy(), joint / (joint.sum() * area), atol=1e-9
    )
    assert not np.allclose(posterior.weights.numpy(), WEIGHTS, atol=0.05)


def test_a_batch_of_observations_is_each_of_them() -> None:
    ys = torch.tensor(np.stack([Y, -Y, 2 * Y]))
    together, evidence = MIXTURE.observed(MATRIX, NOISE, ys)
    for i, y in enumerate(ys):
        alone, log = MIXTURE.observed(MATRIX, NOISE, y)
        assert torch.allclose(together.means[i], alone.means) and torch.allclose(evidence[i], log)
        assert torch.allclose(together.logs[i], alone.logs) and torch.allclose(together.scales[i], alone.scales)


def test_moving_is_the_law_of_the_moved() -> None:
    turn, noise = np.array([[0.9, 0.5], [-0.2, 0.7]]), np.array([[0.2, 0.1], [0.1, 0.3]])
    moved = MIXTURE.moved(turn, noise)
    point = np.array([0.3, -0.7])
    truth = sum(
        w * stats.multivariate_normal(turn @ m, turn @ c @ turn.T + noise).pdf(point)
        for w, m, c in zip(WEIGHTS, np.array(MEANS), np.array(COVARIANCES), strict=True)
    )
    assert float(moved.log_density(torch.tensor(point)).exp()) == pytest.approx(truth, rel=1e-10)


def test_draws_have_the_law_s_moments() -> None:
    """40,000 draws, |z| < 5 for two means and three second moments: false alarms below 1 in 300,000."""
    drawn = MIXTURE.sample(40_000, torch.Generator().manual_seed(0))
    second = MIXTURE.covariance + MIXTURE.mean[:, None] * MIXTURE.mean
    products = torch.stack([drawn[:, 0] ** 2, drawn[:, 0] * drawn[:, 1], drawn[:, 1] ** 2], 1)
    for seen, truth in ((drawn, MIXTURE.mean), (products, second.flatten()[[0, 1, 3]])):
        z = (seen.mean(0) - truth) / (seen.std(0) / len(seen) ** 0.5)
        assert float(z.abs().max()) < 5


def test_batches_are_drawn_each_from_its_own() -> None:
    both = GaussianMixture.of([WEIGHTS, [0, 1, 0]], [MEANS, MEANS], [COVARIANCES, COVARIANCES])
    drawn = both.sample(4_000, torch.Generator().manual_seed(1))
    assert drawn.shape == (4_000, 2, 2)
    assert torch.allclose(drawn.mean(0), both.mean, atol=0.1) and torch.allclose(
        drawn[:, 1].mean(0), both.means[1, 1], atol=0.06
    )


def test_divergence_by_integration() -> None:
    other = GaussianMixture.of([0.4, 0.6], [[0.4], [-1.1]], [[[0.8]], [[0.5]]])
    own = GaussianMixture.of([0.7, 0.3], [[0.9], [-0.4]], [[[0.2]], [[0.6]]])

    def gap(x: float) -> float:
        at = torch.tensor([x])
        log = own.log_density(at)
        return float(log.exp() * (log - other.log_density(at)))

    assert float(own.divergence(other)) == pytest.approx(integrate.quad(gap, -8, 8)[0], abs=1e-4)
    assert float(own.divergence(own)) == 0


def test_divergence_in_the_plane() -> None:
    points, area = grid()
    other, _ = MIXTURE.observed([[1.0, 0.4]], [[2.0]], torch.tensor([0.5]))
    p, log_q = density(points), other.log_density(torch.tensor(points)).numpy()
    truth = (np.where(p > 0, p * (np.log(np.maximum(p, 1e-300)) - log_q), 0)).sum() * area
    assert float(MIXTURE.divergence(other)) == pytest.approx(truth, abs=1e-3)


def test_permuting_changes_nothing() -> None:
    point = torch.tensor([0.3, 0.4])
    other = MIXTURE.permuted([2, 0, 1])
    assert torch.allclose(other.log_density(point), MIXTURE.log_density(point))
    assert other.weights.tolist() == [0.2, 0.5, 0.3]


def test_truncating_keeps_the_heaviest() -> None:
    left = MIXTURE.truncated(2)
    assert np.allclose(left.weights.numpy(), [0.625, 0.375]) and np.allclose(left.means.numpy(), MEANS[:2])


@pytest.mark.parametrize("k", [1, 2])
def test_merging_keeps_mean_and_covariance(k: int) -> None:
    both = GaussianMixture.of([WEIGHTS, [0.1, 0.2, 0.7]], [MEANS, MEANS], [COVARIANCES, COVARIANCES])
    left = both.merged(k)
    assert left.components == k
    assert torch.allclose(left.mean, both.mean) and torch.allclose(left.covariance, both.covariance)


def test_merging_takes_the_two_that_are_alike() -> None:
    one = GaussianMixture.of([0.4, 0.2, 0.4], [[0.0], [5.0], [0.3]], [[[1.0]], [[1.0]], [[1.2]]])
    left = one.merged(2)
    assert torch.allclose(left.means.flatten().sort().values, torch.tensor([0.15, 5.0], dtype=torch.float64))
    assert torch.allclose(left.weights.sort().values, torch.tensor([0.2, 0.8], dtype=torch.float64))


def test_splitting_keeps_mean_and_covariance_and_nearly_the_law() -> None:
    both = GaussianMixture.of([WEIGHTS, [0.1, 0.2, 0.7]], [MEANS, MEANS], [COVARIANCES, COVARIANCES])
    more = both.split(5)
    assert more.components == 5
    assert torch.allclose(more.mean, both.mean) and torch.allclose(more.covariance, both.covariance)
    assert 0 < float(both.divergence(more).max()) < 0.01
    assert len({tuple(m) for m in more.means[0].tolist()}) == 5


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "says"),
    [
        ([0.5, 0.4], [[0.0], [1.0]], [[[1.0]], [[1.0]]], "sum to one"),
        ([0.5, 0.5], [[0.0], [1.0]], [[[1.0]], [[-1.0]]], "positive definite"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.2, 1.0]]], "symmetric"),
        ([0.5, 0.5], [[0.0]], [[[1.0]]], "shapes"),
    ],
)
def test_what_is_no_mixture_is_refused(weights: object, means: object, covariances: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        GaussianMixture.of(weights, means, covariances)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call", [lambda: MIXTURE.merged(4), lambda: MIXTURE.split(2), lambda: MIXTURE.permuted([0, 1])]
)
def test_counts_of_components_that_cannot_be(call: object) -> None:
    with pytest.raises(UsageError):
        call()  # type: ignore[operator]
