"""NIW-Meta's closed forms against quadrature, SciPy's laws and a numerical optimum, none of them its own formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from anystep.bayes.sequential.normal_inverse_wishart import Diagonal, Full, Local

EPISODES = 6


def belief(dim: int = 2) -> Full:
    """Not diagonal, not symmetric about zero."""
    draw = torch.Generator().manual_seed(3)
    root = torch.randn(dim, dim, generator=draw, dtype=torch.float64)
    return Full(torch.tensor([0.7, -1.2][:dim]).double(), root @ root.T + 0.3 * torch.eye(dim).double(), EPISODES)


def laws(q: Full) -> tuple[Any, float]:
    """The belief over Sigma and the count of the mean, as SciPy and the definition name them: V = n P^-1."""
    l, n = q.counts
    return stats.invwishart(n, n * np.linalg.inv(q.precision.detach().numpy())), l


def gaussian(mean: list[float], spread: list[list[float]]) -> Local:
    return Local(torch.tensor([mean]).double(), torch.tensor([spread]).double())


def test_local_posterior_is_the_numerical_optimum_of_the_bound() -> None:
    """A linear-Gaussian episode with correlated inputs. The bound is computed from the data's densities at the points of
    a quadrature, and from SciPy's mean of a Wishart matrix; a quasi-Newton search finds its best Gaussian."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(7, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    y = x @ [1.5, -0.4] + 0.5 * rng.normal(size=7)
    q = belief()
    found = q.local(
        torch.tensor(np.linalg.lstsq(x, y, rcond=None)[0])[None], torch.tensor(x.T @ x / 0.25)[None]
    )
    n, centre = q.counts[1], q.centre.detach().numpy()
    precision = stats.wishart(n, q.precision.detach().numpy() / n).mean()  # Sigma^-1 ~ Wishart(n, V^-1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    grid = np.stack([g.ravel() for g in np.meshgrid(nodes, nodes)], 1)
    mass = np.outer(weights, weights).ravel() / (2 * np.pi)

    def bound(free: Any) -> float:
        mean, root = free[:2], np.array([[np.exp(free[2]), 0.0], [free[3], np.exp(free[4])]])
        at = mean + grid @ root.T
        told = stats.norm(y, 0.5).logpdf((x @ at.T).T).sum(1) @ mass
        away = np.einsum("gi,ij,gj->g", at - centre, precision, at - centre) @ mass / 2
        return float(away - told - free[2] - free[4])

    best = optimize.minimize(bound, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    root = np.array([[np.exp(best[2]), 0.0], [best[3], np.exp(best[4])]])
    assert abs(found.spread[0, 0, 1]) > 0.01  # it is not diagonal
    np.testing.assert_allclose(found.mean[0].detach(), best[:2], atol=1e-4)
    np.testing.assert_allclose(found.spread[0].detach(), root @ root.T, atol=1e-4)


def test_divergence_is_the_mean_over_drawn_populations() -> None:
    """|z| < 5 over 4,000 covariances and means drawn by SciPy: a false alarm in 1.7 million."""
    q, rng = belief(), np.random.default_rng(1)
    local = gaussian([0.2, -0.5], [[0.5, 0.3], [0.3, 0.4]])
    law, l = laws(q)
    inside = torch.distributions.MultivariateNormal(local.mean[0], local.spread[0])
    sigmas = torch.tensor(law.rvs(4_000, random_state=rng))
    roots = torch.linalg.cholesky(sigmas)
    means = q.centre.detach() + (roots @ torch.tensor(rng.normal(size=(4_000, 2, 1))))[..., 0] / l**0.5
    outside = torch.distributions.MultivariateNormal(means, scale_tril=roots)
    drawn = torch.distributions.kl_divergence(inside.expand((4_000,)), outside).numpy()
    assert abs(drawn.mean() - q.divergence(local).item()) < 5 * drawn.std() / 4_000**0.5


def test_divergence_from_the_prior_is_scipys() -> None:
    """The log ratio of SciPy's densities, averaged over draws; |z| < 5."""
    q, rng = belief(), np.random.default_rng(2)
    law, l = laws(q)
    sigmas = law.rvs(3_000, random_state=rng)
    centre, prior = q.centre.detach().numpy(), stats.invwishart(3, 0.7 * np.eye(2))
    logs = []
    for s in sigmas:
        mu = rng.multivariate_normal(centre, s / l)
        at = stats.multivariate_normal.logpdf
        logs.append(law.logpdf(s) + at(mu, centre, s / l) - prior.logpdf(s) - at(mu, np.zeros(2), s))
    assert abs(np.mean(logs) - q.from_prior(0.7).item()) < 5 * np.std(logs) / 3_000**0.5


def test_diagonal_is_full_in_each_coordinate() -> None:
    centre, precision = torch.tensor([0.7, -1.2]).double(), torch.tensor([2.0, 0.3]).double()
    at, given = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[0.5, 4.0]]).double()
    q = Diagonal(centre, precision, EPISODES)
    local = q.local(at, given)
    apart, prior = torch.zeros(1).double(), 0.0
    for j in range(2):
        one = Full(centre[j : j + 1], precision[j : j + 1, None], EPISODES)
        alone = one.local(at[:, j : j + 1], given[:, j : j + 1])
        torch.testing.assert_close(alone.mean[:, 0], local.mean[:, j])
        torch.testing.assert_close(alone.spread[:, 0, 0], local.spread[:, j])
        apart, prior = apart + one.divergence(alone), prior + one.from_prior(0.3)
    torch.testing.assert_close(q.divergence(local), apart)
    torch.testing.assert_close(q.from_prior(0.3), prior)


def test_the_counts_are_where_the_bound_is_best() -> None:
    """With V held, no other counts l and n of the belief give a lower bound than 1 + N and d + 1 + N at the V that
    conjugacy gives; checked on both sides of each."""
    locals_ = Local(
        torch.tensor([[1.0, 0.2], [-0.5, 0.9], [0.3, -1.1]]).double(),
        torch.tensor([[[0.5, 0.3], [0.3, 0.4]]]).double().expand(3, 2, 2),
    )
    total, dim, scale = 3, 2, 0.7
    pooled = locals_.mean.sum(0) / (1 + total)
    v = scale * torch.eye(dim).double() + torch.outer(pooled, pooled)
    for mean, spread in zip(locals_.mean, locals_.spread, strict=True):
        v = v + spread + torch.outer(mean - pooled, mean - pooled)

    def bound(l: float, n: float, centre: torch.Tensor) -> float:
        q = Full(centre, n * torch.linalg.inv(v), total)
        q.counts = (l, n)
        return (q.divergence(locals_).sum() + q.from_prior(scale)).item()

    best = Full(pooled, torch.eye(dim).double(), total).counts
    assert best == (4.0, 6.0)
    lowest = bound(*best, pooled)
    for l, n, centre in ((3.9, 6.0, pooled), (4.1, 6.0, pooled), (4.0, 5.9, pooled), (4.0, 6.1, pooled)):
        assert bound(l, n, centre) > lowest
    for step in (0.05, -0.05):
        assert bound(*best, pooled + torch.tensor([step, 0.0])) > lowest


@pytest.mark.parametrize("wrong", [torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.eye(3)])
def test_a_precision_that_is_none_is_refused(wrong: torch.Tensor) -> None:
    from anystep.errors import UsageError

    with pytest.raises(UsageError, match="positive definite"):
        Full(torch.zeros(2), wrong, 10)
    with pytest.raises(UsageError, match="positive numbers"):
        Diagonal(torch.zeros(2), -torch.ones(2), 10)
