"""How much signal and how much noise at each time: x_t = alpha(t) x_0 + sigma(t) eps, from pure noise to t = 0.

A schedule is two functions of time and nothing else; where a sampler stops between is a `spacing` of a solver. Times
are the model's own: t in [0, 1] for flows and VP models, the noise level itself for VE models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.errors import UsageError

Floats = NDArray[np.float64]


class Schedule(ABC):
    """Signal and noise by time, float64. At t = 0 alpha is 1 and sigma exactly 0; at `last` the model starts.

    last: the largest time. prior: the standard deviation of what a sampler starts from, there.
    """

    last: float = 1.0

    @abstractmethod
    def alpha(self, t: ArrayLike) -> Floats:
        """The signal's factor."""

    @abstractmethod
    def sigma(self, t: ArrayLike) -> Floats:
        """The noise's standard deviation."""

    @abstractmethod
    def rates(self, t: ArrayLike) -> tuple[Floats, Floats]:
        """d alpha / dt and d sigma / dt."""

    @abstractmethod
    def time(self, ratio: ArrayLike) -> Floats:
        """The time at which sigma / alpha is `ratio`: the inverse of `ratio`."""

    def ratio(self, t: ArrayLike) -> Floats:
        """sigma / alpha: the noise level of x_t / alpha(t), increasing in t; infinite where no signal is left."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.sigma(t) / self.alpha(t))

    @property
    def prior(self) -> float:
        return float(self.sigma(self.last))


@dataclass(frozen=True)
class Flow(Schedule):
    """The straight path of flow matching and rectified flow: x_t = (1 - t) x_0 + t eps. Its velocity is eps - x_0.

    Source: Lipman et al., "Flow Matching for Generative Modeling" (ICLR 2023); Liu et al., "Flow Straight and Fast"
    (ICLR 2023).
    """

    def alpha(self, t: ArrayLike) -> Floats:
        return 1.0 - np.asarray(t, dtype=np.float64)

    def sigma(self, t: ArrayLike) -> Floats:
        return np.asarray(t, dtype=np.float64)

    def rates(self, t: ArrayLike) -> tuple[Floats, Floats]:
        ones = np.ones_like(np.asarray(t, dtype=np.float64))
        return -ones, ones

    def time(self, ratio: ArrayLike) -> Floats:
        r = np.asarray(ratio, dtype=np.float64)
        return np.where(np.isinf(r), 1.0, r / (1.0 + np.where(np.isinf(r), 0.0, r)))


@dataclass(frozen=True)
class VE(Schedule):
    """Noise added to an unscaled signal, with the noise level as time: x_t = x_0 + t eps, t from sigma_max.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (NeurIPS 2022).
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < np.inf:
            raise UsageError(
                f"VE(sigma_max={self.sigma_max!r}): the largest noise level is positive; VE(sigma_max=80.0)."
            )

    @property
    def last(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def alpha(self, t: ArrayLike) -> Floats:
        return np.ones_like(np.asarray(t, dtype=np.float64))

    def sigma(self, t: ArrayLike) -> Floats:
        return np.asarray(t, dtype=np.float64)

    def rates(self, t: ArrayLike) -> tuple[Floats, Floats]:
        t = np.asarray(t, dtype=np.float64)
        return np.zeros_like(t), np.ones_like(t)

    def time(self, ratio: ArrayLike) -> Floats:
        return np.asarray(ratio, dtype=np.float64)


@dataclass(frozen=True)
class VP(Schedule):
    """The variance-preserving path with a linear rate: alpha^2 = exp(-beta_min t - (beta_max - beta_min) t^2 / 2).

    It is what DDPM's linear betas tend to, beta_min = 0.1 and beta_max = 20 for 1,000 steps. Some signal is left at
    t = 1: alpha is 0.0066 there by default.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations" (ICLR 2021).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise UsageError(f"{self!r}: 0 < beta_min <= beta_max; call VP(beta_min=0.1, beta_max=20.0).")

    def _spent(self, t: ArrayLike) -> Floats:
        t = np.asarray(t, dtype=np.float64)
        return np.asarray(self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def alpha(self, t: ArrayLike) -> Floats:
        return np.exp(-0.5 * self._spent(t))

    def sigma(self, t: ArrayLike) -> Floats:
        return np.sqrt(-np.expm1(-self._spent(t)))

    def rates(self, t: ArrayLike) -> tuple[Floats, Floats]:
        t = np.asarray(t, dtype=np.float64)
        beta, alpha, sigma = self.beta_min + (self.beta_max - self.beta_min) * t, self.alpha(t), self.sigma(t)
        with np.errstate(divide="ignore"):
            return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma

    def time(self, ratio: ArrayLike) -> Floats:
        spent = np.log1p(np.asarray(ratio, dtype=np.float64) ** 2)
        slope = self.beta_max - self.beta_min
        if slope == 0:
            return np.asarray(spent / self.beta_min)
        return np.asarray(2 * spent / (self.beta_min + np.sqrt(self.beta_min**2 + 2 * slope * spent)))
