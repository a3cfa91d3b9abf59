"""A density fitted to draws: a mixture of Gaussians of full covariance, as many components as held-out draws want.

Preserves: nothing; what it misses of the draws' law is measured by the log density of draws that it was not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.errors import UsageError


@dataclass(frozen=True)
class Mixture:
    """weights (k,), means (k, d), roots (k, d, d): lower Cholesky factors of the covariances. told: the mean held-out
    log density of every number of components that was tried."""

    weights: Tensor
    means: Tensor
    roots: Tensor
    told: dict[int, float]

    def logp(self, x: Tensor) -> Tensor:
        """Log density of x (n, d), differentiable: (n,)."""
        away = torch.linalg.solve_triangular(self.roots, (x[:, None] - self.means)[..., None], upper=False)
        logdet = self.roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = -(away[..., 0] ** 2).sum(-1) / 2 - logdet - x.shape[1] * math.log(2 * math.pi) / 2
        return torch.logsumexp(each + self.weights.log(), -1)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n draws (n, d)."""
        draw = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, n, replacement=True, generator=draw)
        noise = torch.randn(n, self.means.shape[1], generator=draw, dtype=self.means.dtype)
        return self.means[which] + (self.roots[which] @ noise[..., None])[..., 0]


def fit_mixture(
    draws: ArrayLike, held: ArrayLike, components: Sequence[int] = (1, 2, 4, 8, 16), seed: int = 0, floor: float = 1e-4
) -> Mixture:
    """The mixture of `draws` (n, d) with the number of components under which `held` (m, d) are likeliest.

    floor: added to the covariances' diagonals. Raises UsageError for draws that are too few for a covariance, and
    without scikit-learn, which fits.
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise UsageError('fit_mixture needs scikit-learn: pip install "anystep[bayes]".') from error
    x, y = np.asarray(draws, dtype=np.float64), np.asarray(held, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or len(x) <= x.shape[1] or not components:
        raise UsageError(
            f"fit_mixture(draws {x.shape}, held {y.shape}): call fit_mixture(draws, held), rows of draws, more than "
            "they have columns"
        )
    fits: dict[int, Any] = {
        k: GaussianMixture(k, reg_covar=floor, random_state=seed, max_iter=50).fit(x) for k in components if k <= len(x)
    }
    told = {k: float(fit.score(y)) for k, fit in fits.items()}
    best = fits[max(told, key=lambda k: told[k])]
    roots = np.linalg.cholesky(best.covariances_)
    weights, means, factors = (torch.from_numpy(np.array(v)) for v in (best.weights_, best.means_, roots))
    return Mixture(weights, means, factors, told)
