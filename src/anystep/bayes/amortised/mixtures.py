"""Gaussian mixtures as values, a batch of them at a time, with the updates that have a closed form.

Sources: Alspach and Sorenson, "Nonlinear Bayesian Estimation Using Gaussian Sum Approximations" (1972) for the update;
Runnalls, "Kullback-Leibler Approach to Gaussian Mixture Reduction" (2007) for the merging.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.errors import UsageError

Numbers = ArrayLike | Tensor
LOG_TWO_PI = math.log(2 * math.pi)
HALVED = 0.6  # deviations that the halves of a component are moved apart, each


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Mixtures of k Gaussians in d dimensions, one for each place of a batch of any shape.

    logs: (*batch, k) log weights that sum to one as weights. means: (*batch, k, d). scales: (*batch, k, d, d) lower
    Cholesky factors of the covariances, with positive diagonals. `GaussianMixture.of` makes them from weights and
    covariances and refuses what is none; this constructor believes what it is given.
    """

    logs: Tensor
    means: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weights: Numbers, means: Numbers, covariances: Numbers) -> GaussianMixture:
        """From weights (*batch, k), means (*batch, k, d) and covariances (*batch, k, d, d), in float64.

        Raises UsageError for shapes that do not fit, weights that are negative or do not sum to one, and covariances
        that are not symmetric and positive definite.
        """
        w, m, c = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covariances))
        call = "GaussianMixture.of(weights, means, covariances)"
        if w.ndim < 1 or m.shape != (*w.shape, m.shape[-1]) or c.shape != (*m.shape, m.shape[-1]):
            raise UsageError(
                f"{call}: shapes (*batch, k), (*batch, k, d), (*batch, k, d, d), "
                f"not {tuple(w.shape)}, {tuple(m.shape)}, {tuple(c.shape)}."
            )
        if not (bool((w >= 0).all()) and torch.allclose(w.sum(-1), torch.ones((), dtype=w.dtype), atol=1e-8)):
            raise UsageError(f"{call}: weights are at least 0 and sum to one: [0.3, 0.7].")
        scales, wrong = torch.linalg.cholesky_ex(c)
        if bool(wrong.any()) or not torch.allclose(c, c.mT, atol=1e-8) or not bool(m.isfinite().all()):
            raise UsageError(f"{call}: means are finite, covariances symmetric and positive definite.")
        return cls(w.log(), m, scales)

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.logs.shape[:-1])

    @property
    def components(self) -> int:
        return self.logs.shape[-1]

    @property
    def size(self) -> int:
        """The number of dimensions."""
        return self.means.shape[-1]

    @property
    def weights(self) -> Tensor:
        """(*batch, k), summing to one."""
        return self.logs.exp()

    @property
    def covariances(self) -> Tensor:
        """(*batch, k, d, d), one for each component."""
        return self.scales @ self.scales.mT

    @property
    def mean(self) -> Tensor:
        """(*batch, d)."""
        return (self.weights[..., None] * self.means).sum(-2)

    @property
    def covariance(self) -> Tensor:
        """(*batch, d, d), of the whole mixture."""
        off = self.means - self.mean[..., None, :]
        return (self.weights[..., None, None] * (self.covariances + off[..., :, None] * off[..., None, :])).sum(-3)

    def log_components(self, x: Tensor) -> Tensor:
        """(..., k) log of weight times density of each component at x (..., d); x broadcasts against the batch."""
        off = x[..., None, :] - self.means
        white = torch.linalg.solve_triangular(self.scales, off[..., None], upper=False)[..., 0]
        log_det = self.scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.logs - log_det - 0.5 * (white.square().sum(-1) + self.size * LOG_TWO_PI)

    def log_density(self, x: Tensor) -> Tensor:
        """(...) at x (..., d), which broadcasts against the batch: (*batch, d) or (n, *batch, d)."""
        return self.log_components(x).logsumexp(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, *batch, d) independent draws."""
        flat = self.weights.reshape(-1, self.components)
        which = torch.multinomial(flat, n, replacement=True, generator=generator).T.reshape(n, *self.batch, 1)
        noise = torch.randn(n, *self.batch, 1, self.size, generator=generator, dtype=self.means.dtype)
        drawn = self.means + (self.scales @ noise.expand(n, *self.means.shape)[..., None])[..., 0]
        return drawn.gather(-2, which[..., None].expand(*which.shape, self.size))[..., 0, :]

    def observed(self, matrix: Numbers, noise: Numbers, y: Tensor) -> tuple[GaussianMixture, Tensor]:
        """What is believed after y = matrix x + e, e ~ N(0, noise), exactly; and the log evidence of y, (*batch).

        matrix: (..., m, d). noise: (..., m, m). y: (..., m), all broadcast against the batch.
        """
        a, r = (torch.as_tensor(v, dtype=self.means.dtype)[..., None, :, :] for v in (matrix, noise))
        spread = self.covariances
        innovation = torch.as_tensor(y, dtype=self.means.dtype)[..., None, :] - (a @ self.means[..., None])[..., 0]
        total = torch.linalg.cholesky(a @ spread @ a.mT + r)
        gain = torch.cholesky_solve(a @ spread, total).mT  # (..., k, d, m)
        means = self.means + (gain @ innovation[..., None])[..., 0]
        keep = torch.eye(self.size, dtype=spread.dtype) - gain @ a
        covariances = keep @ spread @ keep.mT + gain @ r @ gain.mT  # Joseph's form stays positive definite
        seen = GaussianMixture(self.logs, torch.zeros_like(innovation), total.expand(*innovation.shape, -1))
        off = torch.linalg.solve_triangular(seen.scales, innovation[..., None], upper=False)[..., 0]
        log_det = seen.scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        logs = self.logs - log_det - 0.5 * (off.square().sum(-1) + off.shape[-1] * LOG_TWO_PI)
        evidence = logs.logsumexp(-1)
        scales = torch.linalg.cholesky(covariances).expand(*means.shape, self.size)
        return GaussianMixture(logs - evidence[..., None], means, scales), evidence

    def moved(self, matrix: Numbers, noise: Numbers) -> GaussianMixture:
        """The law of matrix x + e, e ~ N(0, noise), exactly. matrix, noise: (d, d), or one each place of the batch."""
        f, q = (torch.as_tensor(v, dtype=self.means.dtype)[..., None, :, :] for v in (matrix, noise))
        means = (f @ self.means[..., None])[..., 0]
        return GaussianMixture(self.logs, means, torch.linalg.cholesky(f @ self.covariances @ f.mT + q))

    def where(self, chosen: Tensor, other: GaussianMixture) -> GaussianMixture:
        """The other's mixture where `chosen` (*batch) holds, else this one's."""
        return GaussianMixture(
            torch.where(chosen[..., None], other.logs, self.logs),
            torch.where(chosen[..., None, None], other.means, self.means),
            torch.where(chosen[..., None, None, None], other.scales, self.scales),
        )

    def detach(self) -> GaussianMixture:
        """The same numbers, through which no gradient goes."""
        return GaussianMixture(self.logs.detach(), self.means.detach(), self.scales.detach())

    def to(self, dtype: torch.dtype) -> GaussianMixture:
        """In another precision."""
        return GaussianMixture(self.logs.to(dtype), self.means.to(dtype), self.scales.to(dtype))

    def permuted(self, order: Sequence[int]) -> GaussianMixture:
        """The same mixture with its components in another order."""
        if sorted(order) != list(range(self.components)):
            raise UsageError(f"permuted({list(order)}): an order of {self.components} components, as permuted([1, 0]).")
        at = list(order)
        return GaussianMixture(self.logs[..., at], self.means[..., at, :], self.scales[..., at, :, :])

    def truncated(self, k: int) -> GaussianMixture:
        """The k heaviest components, their weights made to sum to one; what the others held is lost."""
        self._fewer("truncated", k)
        logs, at = self.logs.topk(k, -1)
        means = self.means.gather(-2, at[..., None].expand(*at.shape, self.size))
        scales = self.scales.gather(-3, at[..., None, None].expand(*at.shape, self.size, self.size))
        return GaussianMixture(logs.log_softmax(-1), means, scales)

    def split(self, k: int) -> GaussianMixture:
        """k components of nearly the same law: again and again the heaviest is halved along its longest axis.

        Mean and covariance stay; a Gaussian that is halved once is left by 0.004 nats.
        """
        if k < self.components:
            raise UsageError(f"split({k}): at least the {self.components} components there are; merged({k}) for fewer.")
        now = self
        while now.components < k:
            at = now.logs.argmax(-1, keepdim=True)
            mean = now.means.gather(-2, at[..., None].expand(*at.shape, self.size))
            scale = now.scales.gather(-3, at[..., None, None].expand(*at.shape, self.size, self.size))
            spread, axes = torch.linalg.eigh(scale @ scale.mT)
            away = HALVED * spread[..., -1:].sqrt() * axes[..., -1]
            left = torch.linalg.cholesky(scale @ scale.mT - away[..., :, None] * away[..., None, :])
            here = torch.arange(now.components) == at
            logs = torch.where(here, now.logs - math.log(2), now.logs)
            now = GaussianMixture(
                torch.cat([logs, logs.gather(-1, at)], -1),
                torch.cat([torch.where(here[..., None], mean + away, now.means), mean - away], -2),
                torch.cat([torch.where(here[..., None, None], left, now.scales), left], -3),
            )
        return now

    def divergence(self, other: GaussianMixture, nodes: int = 32) -> Tensor:
        """(*batch) Kullback-Leibler divergence of the other mixture from this one, in nats, by quadrature.

        Gauss-Hermite in each component, nodes^d points: for one to three dimensions, and good to a thousandth where
        neither mixture has a component much narrower than this one's.
        """
        points, masses = np.polynomial.hermite_e.hermegauss(nodes)
        grid = torch.tensor(list(itertools.product(points, repeat=self.size)), dtype=self.means.dtype)
        mass = torch.tensor(list(itertools.product(masses, repeat=self.size)), dtype=self.means.dtype).prod(-1)
        found = torch.zeros(self.batch, dtype=self.means.dtype)
        for i in range(self.components):
            off = grid.reshape(-1, *(1 for _ in self.batch), self.size, 1)
            x = self.means[..., i, :] + (self.scales[..., i, :, :] @ off)[..., 0]
            apart = self.log_density(x) - other.log_density(x)
            found = found + self.weights[..., i] * (apart.movedim(0, -1) @ mass) / mass.sum()
        return found

    def merged(self, k: int) -> GaussianMixture:
        """k components of the same mean and covariance: again and again the two whose merging costs least are merged.

        The cost is Runnalls' bound on the divergence, which takes determinants of all pairs: O(k^2 d^3) a merge.
        """
        self._fewer("merged", k)
        now = self
        while now.components > k:
            now = now._merged_once()
        return now

    def _merged_once(self) -> GaussianMixture:
        w, m, c = self.weights, self.means, self.covariances
        pair = w[..., :, None] + w[..., None, :]
        share = torch.where(pair > 0, w[..., :, None] / pair.clamp_min(1e-300), 0.5)[..., None, None]
        off = m[..., :, None, :] - m[..., None, :, :]
        both = share * c[..., :, None, :, :] + (1 - share) * c[..., None, :, :, :]
        both = both + share * (1 - share) * off[..., :, None] * off[..., None, :]
        log_det = torch.linalg.slogdet(c)[1]
        apart = w[..., :, None] * log_det[..., :, None] + w[..., None, :] * log_det[..., None, :]
        cost = 0.5 * (pair * torch.linalg.slogdet(both)[1] - apart)
        k = self.components
        cost = cost.masked_fill(torch.ones(k, k).tril().bool(), torch.inf).flatten(-2)
        at = cost.argmin(-1, keepdim=True)
        i, j = at // k, at % k
        take = torch.arange(k).expand(*self.batch, k)
        keep = take[take != j].reshape(*self.batch, k - 1)
        partner = torch.where(keep == i, j, keep)
        rows = torch.arange(pair[..., 0, 0].numel())[:, None]

        def pick(values: Tensor) -> Tensor:
            flat = values.reshape(-1, k, k, *values.shape[len(self.batch) + 2 :])
            a, b = keep.reshape(-1, k - 1), partner.reshape(-1, k - 1)
            return flat[rows, a, b].reshape(*self.batch, k - 1, *flat.shape[3:])

        middle = share[..., 0] * m[..., :, None, :] + (1 - share[..., 0]) * m[..., None, :, :]
        merged = keep == i
        logs = torch.where(merged, pick(pair), w.gather(-1, keep)).log()
        return GaussianMixture(logs, pick(middle), torch.linalg.cholesky(pick(both)))

    def _fewer(self, name: str, k: int) -> None:
        if not 1 <= k <= self.components:
            raise UsageError(f"{name}({k}): from 1 to the {self.components} components there are.")
