"""Seasonal series with known laws: a random wave of one period and an autoregression, jointly Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anystep.diffusion.models.mixture import MixtureDenoiser
from anystep.diffusion.schedules import Schedule
from anystep.process import Floats

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Seasonal:
    """Windows of a cos(2 pi i / period) + b sin(2 pi i / period) + u_i with a, b standard normal and u an AR(1).

    length: of a window. carry, noise: u_i = carry u_(i-1) + noise e_i, stationary. Everything asked of a window has a
    closed form, so forecasts can be told right from wrong.
    """

    length: int = 36
    period: int = 12
    carry: float = 0.7
    noise: float = 0.35

    @cached_property
    def covariance(self) -> Floats:
        i = np.arange(self.length)
        apart = np.abs(i[:, None] - i)
        stationary = self.noise**2 / (1 - self.carry**2)
        return np.asarray(np.cos(2 * np.pi * apart / self.period) + stationary * self.carry**apart)

    def draw(self, n: int, seed: int) -> Floats:
        """(n, length) windows."""
        normal = np.random.default_rng(seed).standard_normal((n, self.length))
        return np.asarray(normal @ np.linalg.cholesky(self.covariance).T)

    def given(self, windows: Floats, seen: Mask) -> tuple[Floats, Floats]:
        """Mean (n, length) and covariance (length, length) of whole windows given what `seen` (length,) shows of them:
        seen places have their own value and no variance."""
        k = self.covariance
        gain = np.linalg.solve(k[np.ix_(seen, seen)], k[seen]).T
        return windows[:, seen] @ gain.T, k - gain @ k[seen]

    def denoiser(self, schedule: Schedule | None = None) -> MixtureDenoiser:
        """The exact E[x_0 | x_t] of windows."""
        mean = np.zeros((1, self.length))
        return MixtureDenoiser([1.0], mean, self.covariance[None], schedule, name="seasonal")


def crps(samples: Floats, truth: Floats) -> Floats:
    """(n,) continuous ranked probability score of samples (n, s, steps) against truth (n, steps), mean over steps.

    E|X - y| - E|X - X'| / 2 over the samples as they are: 0 is best, the units are those of the series, and for one
    sample it is the absolute error. Source: Gneiting and Raftery, "Strictly Proper Scoring Rules" (2007).
    """
    s = samples.shape[1]
    ordered = np.sort(samples, axis=1)
    # E|X - X'| / 2 from order statistics: sum of (2 i - s + 1) x_(i), i from 0, over s^2.
    weights = (2 * np.arange(s) - s + 1) / s**2
    apart = (ordered * weights[:, None]).sum(1)
    return np.asarray((np.abs(samples - truth[:, None]).mean(1) - apart).mean(-1))


def ridge(windows: Floats, seen: Mask, penalty: float = 1e-2) -> Floats:
    """(seen places, other places) weights of the linear forecaster that these windows teach."""
    x, y = windows[:, seen], windows[:, ~seen]
    return np.asarray(np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ y))
