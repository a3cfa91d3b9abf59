"""Where to look next? The points whose best value is expected to improve most on the best so far.

Monte Carlo expected improvement of q points at once (Wilson, Hutter and Deisenroth, 2018): the mean, over joint draws
of the function, of how far the lowest of them lies below the best value. The logarithm is optimised, of an improvement
whose corner is rounded, because far from the best every draw's slope would be zero.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from anystep.bayes.optimise.surrogates import Belief, Surrogate
from anystep.errors import UsageError

ROUND = 1e-3  # width of the rounded corner, in standard deviations of the values
SPREAD = math.sqrt(12.0)  # what makes a uniform input's variance one


def log_expected_improvement(belief: Belief, x: Tensor, best: Tensor, draws: int = 128, seed: int = 0) -> Tensor:
    """Log expected improvement (...) of the q points x (..., q, d) together on the value `best` (*batch)."""
    z = (best - belief.sample(x, draws, seed).amin(-1)) / ROUND
    logs = torch.where(z > -30, softplus(z.clamp_min(-30.0)).log(), z)  # far below, the logarithm of softplus is its z
    return torch.logsumexp(logs, 0) + math.log(ROUND / draws)


def suggest(
    surrogate: Surrogate,
    x: Tensor,
    y: Tensor,
    q: int = 1,
    seed: int = 0,
    draws: int = 128,
    raw: int = 128,
    restarts: int = 4,
    iterations: int = 15,
) -> Tensor:
    """The next q points (*batch, q, d) in the unit cube, for each function, given y (*batch, n) at x (*batch, n, d).

    A value that is not finite is a failed evaluation, and counts as the worst seen, so that its surroundings are left.
    Of `raw` sets of points, from a Sobol sequence and about the best point, `restarts` are improved by `iterations`
    steps along the slope. Raises UsageError where nothing was seen, or all of it failed.
    """
    a, b = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
    seen = torch.isfinite(b)
    if not bool(seen.any(-1).all()):
        raise UsageError("suggest(surrogate, x, y): at least one value is finite; start with Sobol points")
    b = torch.where(seen, b, torch.where(seen, b, -math.inf).amax(-1, keepdim=True))
    b = (b - b.mean(-1, keepdim=True)) / b.std(-1, keepdim=True, correction=0).clamp_min(1e-9)
    belief = surrogate.fit(stretched(a), b, seed)
    best = b.amin(-1)

    def worth(points: Tensor) -> Tensor:
        return log_expected_improvement(belief, stretched(points), best, draws, seed)

    starts = candidates(a, b, q, raw, seed)
    with torch.no_grad():
        first = worth(starts).topk(restarts, dim=0).indices
    points = starts.take_along_dim(first[..., None, None], 0)
    return climb(worth, points, iterations)


def climb(worth, points: Tensor, iterations: int) -> Tensor:
    """The best (*batch, q, d) of points (restarts, *batch, q, d) and of where steps of Adam lead them in the cube."""
    points = points.clone().requires_grad_()
    optimiser = torch.optim.Adam([points], 0.03)
    top, kept = torch.full(points.shape[:-2], -math.inf, dtype=points.dtype), points.detach().clone()
    for step in range(iterations + 1):
        value = worth(points)
        with torch.no_grad():
            better = value > top
            top = torch.where(better, value, top)
            kept = torch.where(better[..., None, None], points, kept)
        if step < iterations:
            optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / iterations) + 0.001
            optimiser.zero_grad()
            (-value.sum()).backward()
            optimiser.step()
            with torch.no_grad():
                points.clamp_(0.0, 1.0)
    return kept.take_along_dim(top.argmax(0)[None, ..., None, None], 0)[0]


def candidates(x: Tensor, y: Tensor, q: int, raw: int, seed: int) -> Tensor:
    """Sets of points (raw, *batch, q, d): half of a Sobol sequence, half about the best point seen.

    About the best point some inputs stay as they are: in many dimensions a step along all of them leads far away.
    """
    d, half = x.shape[-1], raw // 2
    generator = torch.Generator().manual_seed(seed)
    wide = torch.as_tensor(sobol(half * q, d, seed)).reshape(half, *[1] * (x.dim() - 2), q, d)
    wide = wide.expand(half, *x.shape[:-2], q, d)
    best = x.take_along_dim(y.argmin(-1)[..., None, None], -2)
    shape = (raw - half, *[1] * (x.dim() - 2), q, d)
    scale = 10 ** (-2.5 * torch.rand(*shape[:-2], 1, 1, generator=generator, dtype=x.dtype)) * 0.5
    moved = torch.rand(shape, generator=generator) < (0.5 if d <= 20 else 10 / d)
    step = scale * torch.randn(shape, generator=generator, dtype=x.dtype) * moved
    return torch.cat([wide, (best + step).clamp(0.0, 1.0)])


def sobol(n: int, d: int, seed: int) -> np.ndarray:
    """n points (n, d) of a scrambled Sobol sequence, any n: the sequence's first."""
    from scipy.stats import qmc  # takes half a second to import

    full = qmc.Sobol(d, rng=np.random.default_rng(seed)).random_base2(max(0, math.ceil(math.log2(max(1, n)))))
    return np.asarray(full[:n])


def stretched(x: Tensor) -> Tensor:
    """The unit cube about zero, each input's variance one."""
    return (x - 0.5) * SPREAD
