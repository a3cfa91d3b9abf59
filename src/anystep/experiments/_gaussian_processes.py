"""Exact answers for Gaussian-process priors, in closed form and by quadrature over their hyper-parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anystep.bayes.amortised.priors import GPPrior


def covariance(prior: GPPrior, told: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """(..., n, m) of noiseless values; told: (..., 3), in spreads from the medians, of lengthscale, scale and noise."""
    length, scale, _ = hyper(prior, told)
    gaps = (x[..., :, None, :] - other[..., None, :, :]).square().sum(-1)
    return scale[..., None, None] * torch.exp(-0.5 * gaps / length[..., None, None] ** 2)


def hyper(prior: GPPrior, told: Tensor) -> tuple[Tensor, ...]:
    """Lengthscale, outputscale and noise from standard normals (..., 3)."""
    pairs = (prior.lengthscale, prior.outputscale, prior.noise)
    return tuple(median * torch.exp(spread * told[..., i]) for i, (median, spread) in enumerate(pairs))


def exact(prior: GPPrior, x: Tensor, y: Tensor, query: Tensor, answer: Tensor, told: Tensor | None = None) -> Tensor:
    """Log density (..., m) of the answers, each by itself, given x (..., n, d) and y (..., n), `told` being known."""
    mean, variance, _ = conditional(prior, x, y, query, torch.zeros(3) if told is None else told)
    return normal(answer.double(), mean, variance)


def conditional(prior: GPPrior, x: Tensor, y: Tensor, query: Tensor, told: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (..., m) of y at the queries, and the log marginal likelihood (...) of the context."""
    x, y, query, told = (part.double() for part in (x, y, query, told))
    _, scale, noise = hyper(prior, told)
    n = x.shape[-2]
    root = torch.linalg.cholesky(covariance(prior, told, x, x) + noise[..., None, None] * torch.eye(n).double())
    right = torch.cat([covariance(prior, told, x, query), y[..., None].expand(*root.shape[:-1], 1)], -1)
    half = torch.linalg.solve_triangular(root, right, upper=False)
    cross, white = half[..., :-1], half[..., -1]
    mean = (cross * white[..., None]).sum(-2)
    variance = (scale + noise)[..., None] - cross.square().sum(-2)
    logdet = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return mean, variance, -0.5 * white.square().sum(-1) - logdet - 0.5 * n * math.log(2 * math.pi)


def normal(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log density of y."""
    return -0.5 * ((y - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi))


def grid(prior: GPPrior, points: int = 17, reach: float = 4.0) -> tuple[Tensor, Tensor]:
    """Standard normals (nodes, 3) on an even grid, and their log prior masses (nodes,); fixed ones are at 0."""
    even = torch.linspace(-reach, reach, points).double()
    none = torch.zeros(1).double()
    axes = [even if spread else none for _, spread in (prior.lengthscale, prior.outputscale, prior.noise)]
    nodes = torch.cartesian_prod(*axes)
    mass = -0.5 * nodes.square().sum(-1)
    return nodes, mass - mass.logsumexp(0)


def integrated(prior: GPPrior, x: Tensor, y: Tensor, query: Tensor, answer: Tensor, points: int = 17) -> Tensor:
    """Log density (sets, m) of the answers with the hyper-parameters integrated out by the trapezoid rule.

    The integrand is smooth and falls like a normal density at both ends, where that rule is at its best.
    """
    nodes, mass = grid(prior, points)
    found = []
    for a, b, q, c in zip(x, y, query, answer, strict=True):
        mean, variance, evidence = conditional(prior, a[None], b[None], q[None], nodes)
        weight = (mass + evidence).log_softmax(0)
        found.append((weight[:, None] + normal(c.double(), mean, variance)).logsumexp(0))
    return torch.stack(found)
