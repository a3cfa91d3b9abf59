"""How far are two sets of samples apart? Energy distance, maximum mean discrepancy and sliced Wasserstein distance.

Sets are (n, ...) and (m, ...) tensors; rows are flattened, and everything is computed in float64. Energy and MMD are
unbiased: two sets of the same law are at 0 on average, and often below.

Sources: Szekely and Rizzo, "Energy statistics" (2013); Gretton et al., "A Kernel Two-Sample Test" (JMLR 2012);
Rabin et al., "Wasserstein Barycenter and Its Application to Texture Mixing" (2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anystep.errors import UsageError


def flat(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both as (n, d) in float64. Raises UsageError for too few rows, and rows of different sizes."""
    x, y = (v.detach().flatten(1).to("cpu", torch.float64) for v in (x, y))
    if min(len(x), len(y)) < least or x.shape[1] != y.shape[1]:
        raise UsageError(
            f"samples of {tuple(x.shape)} against {tuple(y.shape)}: (n, d) and (m, d), {least} rows or more each."
        )
    return x, y


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, Euclidean, over pairs of different rows."""
    x, y = flat(x, y)
    return float(2 * torch.cdist(x, y, compute_mode=EXACT).mean() - _apart(x) - _apart(y))


def mmd(x: Tensor, y: Tensor, bandwidths: Sequence[float] | None = None) -> float:
    """The squared maximum mean discrepancy, of a kernel that is the mean of Gaussians exp(-|x - y|^2 / (2 h^2)).

    bandwidths: the h; by default half, once and twice the median distance between rows of y, so that several models
    are compared under one kernel where y is what they are compared with.
    """
    x, y = flat(x, y)
    inside = torch.pdist(y)
    scales = bandwidths or [float(inside.median()) * c for c in (0.5, 1.0, 2.0)]
    if min(scales) <= 0:
        raise UsageError(f"mmd(x, y, bandwidths={list(scales)}): bandwidths are positive; mmd(x, y, [1.0]).")

    def kernel(distance: Tensor) -> float:
        return sum(float(torch.exp(distance.square() / (-2 * h * h)).mean()) for h in scales) / len(scales)

    return kernel(torch.pdist(x)) + kernel(inside) - 2 * kernel(torch.cdist(x, y, compute_mode=EXACT))


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 256, seed: int = 0) -> float:
    """The root of the mean squared Wasserstein-2 distance of one-dimensional projections, on random directions.

    Where the sets differ in size, the larger one's quantiles are read at the smaller one's. Two sets of the same law
    are not at 0: compare with `floor`.
    """
    x, y = flat(x, y, 1)
    draw = torch.Generator().manual_seed(seed)
    ways = torch.randn(x.shape[1], projections, generator=draw, dtype=torch.float64)
    ways = ways / ways.norm(dim=0)
    n = min(len(x), len(y))
    one, other = (_quantiles((v @ ways).sort(0).values, n) for v in (x, y))
    return float((one - other).square().mean().sqrt())


EXACT = "donot_use_mm_for_euclid_dist"  # the faster way loses the digits that near rows are told apart by


def _apart(x: Tensor) -> float:
    return float(torch.pdist(x).mean())


def _quantiles(ordered: Tensor, n: int) -> Tensor:
    """(n, k) at the middles of n equal shares, between the rows that lie around them."""
    if len(ordered) == n:
        return ordered
    at = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * len(ordered) - 0.5).clamp(0, len(ordered) - 1)
    low = at.floor().long()
    high = (low + 1).clamp_max(len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], (at - low)[:, None])
