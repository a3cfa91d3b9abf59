"""Bayesian linear regression, one batch after another: the posterior of one is the prior of the next, exactly.

y = w'x + noise, noise ~ N(0, sd^2), w ~ N(mean, precision^-1). Preserves: the posterior given all batches, whatever
their order and sizes. That says nothing about its use where one w does not fit them all.

Source: Kessler et al., "On Sequential Bayesian Inference for Continual Learning", Entropy 2023 (arXiv 2301.01828).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anystep.errors import UsageError
from anystep.process import Floats


@dataclass(frozen=True)
class LinearBelief:
    """What is believed of w: pull (d,), which is precision times mean, and precision (d, d); sd of the noise."""

    pull: Floats
    precision: Floats
    sd: float

    @classmethod
    def prior(cls, covariance: ArrayLike, sd: float) -> LinearBelief:
        """w ~ N(0, covariance), noise of standard deviation `sd`. Raises UsageError for what is no covariance."""
        held = np.asarray(covariance, dtype=np.float64)
        if held.ndim != 2 or held.shape[0] != held.shape[1] or np.linalg.eigvalsh(held).min() <= 0 or not sd > 0:
            raise UsageError(
                f"prior(covariance {held.shape}, sd={sd}): a positive definite matrix and a positive number; call "
                "LinearBelief.prior(np.eye(3), sd=0.5)"
            )
        return cls(np.zeros(len(held)), np.asarray(np.linalg.inv(held), dtype=np.float64), sd)

    def update(self, x: ArrayLike, y: ArrayLike) -> LinearBelief:
        """The posterior after a batch x (n, d), y (n,)."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.pull) or y.shape != (len(x),):
            raise UsageError(f"update(x {x.shape}, y {y.shape}): call update(x, y), x (n, {len(self.pull)}), y (n,)")
        return LinearBelief(self.pull + x.T @ y / self.sd**2, self.precision + x.T @ x / self.sd**2, self.sd)

    @property
    def mean(self) -> Floats:
        return np.asarray(np.linalg.solve(self.precision, self.pull), dtype=np.float64)

    @property
    def covariance(self) -> Floats:
        return np.asarray(np.linalg.inv(self.precision), dtype=np.float64)

    def predict(self, x: ArrayLike) -> tuple[Floats, Floats]:
        """Mean and standard deviation of new y at x (n, d), each (n,)."""
        x = np.asarray(x, dtype=np.float64)
        spread = np.einsum("ni,ij,nj->n", x, self.covariance, x)
        return x @ self.mean, np.sqrt(spread + self.sd**2)
