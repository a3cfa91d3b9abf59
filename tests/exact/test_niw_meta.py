"""NIW-Meta's closed forms against quadrature, SciPy's laws and a numerical optimum, none of them its own formulas."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from anystep.bayes.sequential.batched import MLP
from anystep.bayes.sequential.niw_meta import Classes, Langevin, NIWMeta, Noise
from anystep.bayes.sequential.normal_inverse_wishart import Diagonal, Full, Local
from anystep.errors import UsageError
from anystep.experiments._episodes import SHOTS, Maml, sinusoids, squared
from anystep.experiments._memory import saved_bytes
from anystep.experiments.niw_meta import drawn, leftovers, linear_gap

EPISODES = 6


def belief(dim: int = 2) -> Full:
    """Not diagonal, not symmetric about zero."""
    draw = torch.Generator().manual_seed(3)
    root = torch.randn(dim, dim, generator=draw, dtype=torch.float64)
    return Full(torch.tensor([0.7, -1.2][:dim]).double(), root @ root.T + 0.3 * torch.eye(dim).double(), EPISODES)


def laws(q: Full) -> tuple[Any, float]:
    """The belief over Sigma and the count of the mean, as SciPy and the definition name them: V = n P^-1."""
    few, n = q.counts
    return stats.invwishart(n, n * np.linalg.inv(q.precision.detach().numpy())), few


def gaussian(mean: list[float], spread: list[list[float]]) -> Local:
    return Local(torch.tensor([mean]).double(), torch.tensor([spread]).double())


def test_local_posterior_is_the_numerical_optimum_of_the_bound() -> None:
    """A linear-Gaussian episode with correlated inputs. The bound is computed from the data's densities at the points
    of a quadrature, and from SciPy's mean of a Wishart matrix; a quasi-Newton search finds its best Gaussian."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(7, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    y = x @ [1.5, -0.4] + 0.5 * rng.normal(size=7)
    q = belief()
    found = q.local(torch.tensor(np.linalg.lstsq(x, y, rcond=None)[0])[None], torch.tensor(x.T @ x / 0.25)[None])
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
    law, few = laws(q)
    inside = torch.distributions.MultivariateNormal(local.mean[0], local.spread[0])
    sigmas = torch.tensor(law.rvs(4_000, random_state=rng))
    roots = torch.linalg.cholesky(sigmas)
    means = q.centre.detach() + (roots @ torch.tensor(rng.normal(size=(4_000, 2, 1))))[..., 0] / few**0.5
    outside = torch.distributions.MultivariateNormal(means, scale_tril=roots)
    drawn = torch.distributions.kl_divergence(inside.expand((4_000,)), outside).numpy()
    assert abs(drawn.mean() - q.divergence(local).item()) < 5 * drawn.std() / 4_000**0.5


def test_divergence_from_the_prior_is_scipys() -> None:
    """The log ratio of SciPy's densities, averaged over draws; |z| < 5."""
    q, rng = belief(), np.random.default_rng(2)
    law, few = laws(q)
    sigmas = law.rvs(3_000, random_state=rng)
    centre, prior = q.centre.detach().numpy(), stats.invwishart(3, 0.7 * np.eye(2))
    away = np.einsum("nij,nj->ni", np.linalg.cholesky(sigmas), rng.normal(size=(3_000, 2)))
    means, normal = centre + away / few**0.5, torch.distributions.MultivariateNormal
    whole, part = torch.from_numpy(sigmas), torch.from_numpy(sigmas / few)
    told = normal(torch.from_numpy(np.tile(centre, (3_000, 1))), part).log_prob(torch.from_numpy(means))
    logs = told - normal(torch.zeros(3_000, 2).double(), whole).log_prob(torch.from_numpy(means))
    stacked = np.moveaxis(sigmas, 0, -1)
    logs = logs.numpy() + law.logpdf(stacked) - prior.logpdf(stacked)
    assert abs(logs.mean() - q.from_prior(0.7).item()) < 5 * logs.std() / 3_000**0.5


def test_diagonal_is_full_in_each_coordinate() -> None:
    centre, precision = torch.tensor([0.7, -1.2]).double(), torch.tensor([2.0, 0.3]).double()
    at, given = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[0.5, 4.0]]).double()
    q = Diagonal(centre, precision, EPISODES)
    local = q.local(at, given)
    apart, prior = torch.zeros(1).double(), torch.zeros(()).double()
    for j in range(2):
        one = Full(centre[j : j + 1], precision[j : j + 1, None], EPISODES)
        alone = one.local(at[:, j : j + 1], given[:, j : j + 1])
        torch.testing.assert_close(alone.mean[:, 0], local.mean[:, j])
        torch.testing.assert_close(alone.spread[:, 0, 0], local.spread[:, j])
        apart, prior = apart + one.divergence(alone), prior + one.from_prior(0.3)
    torch.testing.assert_close(q.divergence(local), apart)
    torch.testing.assert_close(q.from_prior(0.3), prior)


def test_the_counts_are_where_the_bound_is_best() -> None:
    """With V held, no other counts of the belief give a lower bound than 1 + N and d + 1 + N at the V that
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

    def bound(few: float, n: float, centre: torch.Tensor) -> float:
        q = Full(centre, n * torch.linalg.inv(v), total)
        q.counts = (few, n)
        return (q.divergence(locals_).sum() + q.from_prior(scale)).item()

    best = Full(pooled, torch.eye(dim).double(), total).counts
    assert best == (4.0, 6.0)
    lowest = bound(*best, pooled)
    for few, n, centre in ((3.9, 6.0, pooled), (4.1, 6.0, pooled), (4.0, 5.9, pooled), (4.0, 6.1, pooled)):
        assert bound(few, n, centre) > lowest
    for step in (0.05, -0.05):
        assert bound(*best, pooled + torch.tensor([step, 0.0])) > lowest


@pytest.mark.parametrize("wrong", [torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.eye(3)])
def test_a_precision_that_is_none_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="positive definite"):
        Full(torch.zeros(2), wrong, 10)
    with pytest.raises(UsageError, match="positive numbers"):
        Diagonal(torch.zeros(2), -torch.ones(2), 10)


def test_langevin_finds_a_gaussian_likelihoods_place_and_precision() -> None:
    """Correlated steps of a long chain, 200 side by side; the step's own bias is 3% at most."""
    place, precision = torch.tensor([1.0, -3.0]), torch.tensor([2.0, 9.0])
    at, found = Langevin(steps=800, step=0.05, keep=760, cap=1e6, longest=1e9)(
        torch.zeros(200, 2), lambda w: -(precision * (w - place) ** 2).sum(1) / 2, torch.Generator().manual_seed(0)
    )
    assert not at.requires_grad and not found.requires_grad
    torch.testing.assert_close(at.mean(0), place, atol=0.05, rtol=0)
    torch.testing.assert_close(found.mean(0) / precision, torch.ones(2), atol=0.12, rtol=0)


def wave_learner(steps: int) -> NIWMeta:
    return NIWMeta(MLP((1, 8, 1)), Noise(0.3), 64, quadratic=Langevin(steps, 1e-4, keep=1, heat=0.0))


def test_a_gradient_goes_through_the_closed_form_alone() -> None:
    """The loss's slope in the centre is that of the bound with the quadratic given as numbers."""
    ours, episodes = wave_learner(3), sinusoids(4, 5, torch.Generator().manual_seed(0))
    state = ours.draw.get_state()
    (slope,) = torch.autograd.grad(ours.loss(episodes.x, episodes.y, SHOTS), ours.belief.centre)
    x, y = episodes.seen()
    start = ours.belief.centre.detach().expand(4, -1)
    at, precision = ours.quadratic(start, lambda w: ours.likelihood.logp(ours.net(w, x), y), ours.draw)
    ours.draw.set_state(state)
    local = ours.belief.local(at, precision)
    told = ours.likelihood.logp(
        ours.net(local.draw(torch.randn(local.mean.shape, generator=ours.draw)), episodes.x), episodes.y
    )
    bound = (ours.belief.divergence(local) - told).mean() + ours.belief.from_prior(ours.scale) / 64
    torch.testing.assert_close(slope, torch.autograd.grad(bound, ours.belief.centre)[0])


def test_bytes_saved_do_not_grow_with_inner_steps_and_mamls_do() -> None:
    episodes = sinusoids(4, 5, torch.Generator().manual_seed(0))
    x, y = episodes.x, episodes.y
    flat = {saved_bytes(partial(wave_learner(n).update, x, y, SHOTS)) for n in (1, 3, 9)}
    assert len(flat) == 1
    few, many = (saved_bytes(partial(Maml(MLP((1, 8, 1)), squared, n, 0.01, 0).update, episodes)) for n in (1, 9))
    assert many > 4 * few


def test_nothing_of_an_episode_is_left() -> None:
    assert leftovers() == (0, 0)


def test_it_learns_and_the_same_seed_learns_the_same() -> None:
    def trained() -> NIWMeta:
        draw = torch.Generator().manual_seed(1)

        def batch() -> tuple[torch.Tensor, torch.Tensor, int]:
            e = sinusoids(16, 10, draw)
            return e.x, e.y, SHOTS

        return NIWMeta(MLP((1, 16, 1)), Noise(0.5), 640, quadratic=Langevin(3, 1e-3, 1, heat=0.0), rate=1e-2).fit(
            batch, 40
        )

    test = sinusoids(64, 20, torch.Generator().manual_seed(9))
    fresh = NIWMeta(MLP((1, 16, 1)), Noise(0.5), 640)
    ours, again = trained(), trained()
    errors = [float(squared(drawn(m, test)[0], test.asked()[1]).mean()) for m in (fresh, ours)]
    assert errors[1] < errors[0]
    torch.testing.assert_close(ours.belief.centre, again.belief.centre, rtol=0, atol=0)


def test_classes_average_probabilities_and_calls_that_are_wrong_say_so() -> None:
    ours = NIWMeta(MLP((2, 3)), Classes(), 10)
    x, y = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0)), torch.arange(5).expand(2, 5) % 3
    p = ours.predict(ours.adapt(x, y), x, samples=4)
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 5))
    with pytest.raises(UsageError, match="batch first"):
        ours.adapt(x[0], y[0])
    with pytest.raises(UsageError, match="above zero"):
        NIWMeta(MLP((2, 3)), Classes(), 0)
    with pytest.raises(UsageError, match="keep between"):
        Langevin(steps=2, keep=3)
    with pytest.raises(UsageError, match="MLP"):
        MLP((3,))
    with pytest.raises(UsageError, match="weights"):
        MLP((2, 3))(torch.zeros(1, 5), x)


def test_the_experiments_optimum_is_the_closed_form() -> None:
    assert linear_gap() < 1e-4
