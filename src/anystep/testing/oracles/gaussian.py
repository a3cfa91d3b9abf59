"""A linear-Gaussian state-space model with exact evidence, by the Kalman filter."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.process import Floats, Status
from anystep.stepwise import Arrays, Moved, Stepwise


@dataclass(frozen=True, eq=False)
class Points(Arrays):
    """x: (n, d) positions. t: (n,) the clock."""

    x: Floats
    t: NDArray[np.int64]


def log_normal(x: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Log-density of N(mean, covariance) at x; x and mean (..., d), covariance (d, d)."""
    gap = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean)[..., None])[..., 0]
    square = (gap**2).sum(-1)
    return np.asarray(-0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1]))


class LinearGaussian(Stepwise):
    """x_t = F x_(t-1) + noise of covariance Q, from x_0 = 0; y_t = H x_t + noise of variance R. None is diagonal.

    A step draws x_t from its transition and adds log p(y_t | x_t) to logw. Log-probabilities are densities.
    """

    logp = "density"
    states = Points
    F = np.array([[0.8, -0.35], [0.25, 0.7]])
    Q = np.array([[0.5, 0.32], [0.32, 0.4]])
    H = np.array([[1.0, -0.6]])
    R = np.array([[0.6]])

    def __init__(self, seed: int = 0, steps: int = 5, name: str = "linear-gaussian") -> None:
        if steps < 1:
            raise UsageError(f"LinearGaussian(steps={steps}): steps is 1 or more; call LinearGaussian(steps=5).")
        self.steps, self.horizon, self.name = steps, steps, name
        self.root = np.linalg.cholesky(self.Q)
        noise = lineage.normals(lineage.roots(seed, (), np.arange(steps)), 0, 3)
        x, observed = np.zeros(2), []
        for e in noise:
            x = self.F @ x + self.root @ e[:2]
            observed.append(self.H @ x + np.sqrt(self.R[0]) * e[2])
        self.observed = np.array(observed)

    def forward(self, rows: Floats) -> Floats:
        """Mean of the next position after each of `rows`, both (n, 2)."""
        # Summed by hand: a matrix product may round a row by what else is in the batch.
        return np.asarray(rows[:, :1] * self.F[:, 0] + rows[:, 1:] * self.F[:, 1])

    def begin(self, keys: Keys) -> Points:
        return Points(np.zeros((len(keys), 2)), np.zeros(len(keys), dtype=np.int64))

    def advance(self, states: Points, keys: Keys) -> Moved:
        mean = self.forward(states.x)
        e = lineage.normals(keys, states.t, 2)
        x = mean + e[:, :1] * self.root[:, 0] + e[:, 1:] * self.root[:, 1]
        status = np.where(states.t + 1 == self.steps, np.int8(Status.DONE), np.int8(Status.LIVE))
        seen = log_normal(self.observed[states.t], x @ self.H.T, self.R)
        return Moved(Points(x, states.t + 1), status, log_normal(x, mean, self.Q), seen)

    def answers(self, states: Points) -> tuple[Hashable, ...]:
        return tuple(tuple(x) for x in states.x.tolist())

    def kalman(self) -> tuple[Floats, Floats, float]:
        """Mean and covariance of x_T given y_1..T, and log p(y)."""
        mean, covariance, evidence = np.zeros(2), np.zeros((2, 2)), 0.0
        for y in self.observed:
            mean, covariance = self.F @ mean, self.F @ covariance @ self.F.T + self.Q
            spread = self.H @ covariance @ self.H.T + self.R
            evidence += float(log_normal(y, self.H @ mean, spread))
            gain = covariance @ self.H.T @ np.linalg.inv(spread)
            mean, covariance = mean + gain @ (y - self.H @ mean), covariance - gain @ self.H @ covariance
        return mean, covariance, evidence

    def evidence(self) -> float:
        """log p(y)."""
        return self.kalman()[2]
