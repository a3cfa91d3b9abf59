"""How much signal and how much noise at each time: x_t = alpha(t) x_0 + sigma(t) eps, from pure noise to t = 0.

A schedule is two functions of time and nothing else; where a sampler stops between is a `spacing` of a solver. Times
are the model's own: t in [0, 1] for flows and VP models, the noise level itself for VE models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

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


class Preserving(Schedule):
    """Schedules with alpha^2 + sigma^2 = 1: all of them is `spent`, -log(alpha^2), which grows from 0 at t = 0."""

    @abstractmethod
    def spent(self, t: ArrayLike) -> Floats:
        """The integral of beta from 0 to t."""

    @abstractmethod
    def beta(self, t: ArrayLike) -> Floats:
        """The rate at which signal is spent."""

    @abstractmethod
    def when(self, spent: Floats) -> Floats:
        """The time at which so much is spent."""

    def alpha(self, t: ArrayLike) -> Floats:
        return np.exp(-0.5 * self.spent(t))

    def sigma(self, t: ArrayLike) -> Floats:
        return np.sqrt(-np.expm1(-self.spent(t)))

    def rates(self, t: ArrayLike) -> tuple[Floats, Floats]:
        beta, alpha, sigma = self.beta(t), self.alpha(t), self.sigma(t)
        with np.errstate(divide="ignore"):
            return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma

    def time(self, ratio: ArrayLike) -> Floats:
        return self.when(np.log1p(np.asarray(ratio, dtype=np.float64) ** 2))


@dataclass(frozen=True)
class VP(Preserving):
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

    def spent(self, t: ArrayLike) -> Floats:
        t = np.asarray(t, dtype=np.float64)
        return np.asarray(self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def beta(self, t: ArrayLike) -> Floats:
        return np.asarray(self.beta_min + (self.beta_max - self.beta_min) * np.asarray(t, dtype=np.float64))

    def when(self, spent: Floats) -> Floats:
        slope = self.beta_max - self.beta_min
        if slope == 0:
            return np.asarray(spent / self.beta_min)
        return np.asarray(2 * spent / (self.beta_min + np.sqrt(self.beta_min**2 + 2 * slope * spent)))


@dataclass(frozen=True, repr=False)
class DiscreteVP(Preserving):
    """The path of a model trained on a list of betas, as DDPM and latent diffusion models are.

    Such a model was shown its states after noising step i = 0, 1, ..., n - 1, where alpha^2 is the product of 1 - beta
    up to and with i. Here step i stands at time t = (i + 1) / n, so that t = 0 is clean and t = 1 the last step;
    `index(t)` is what the model wants to hear. Between two steps -log(alpha^2) is interpolated, which makes the path
    continuous and changes nothing at the steps.

    betas: in (0, 1), one a noising step. Raises UsageError for others.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models" (NeurIPS 2020); cosine: Nichol and Dhariwal, "Improved
    Denoising Diffusion Probabilistic Models" (ICML 2021).
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < b < 1 for b in self.betas):
            raise UsageError("DiscreteVP(betas): each beta lies between 0 and 1; try DiscreteVP.linear(steps=1000).")

    def __repr__(self) -> str:
        return f"DiscreteVP({len(self.betas)} betas, {self.betas[0]:.4g} to {self.betas[-1]:.4g})"

    @classmethod
    def linear(cls, first: float = 1e-4, last: float = 0.02, steps: int = 1000) -> DiscreteVP:
        """Equally spaced betas, DDPM's."""
        return cls(tuple(np.linspace(first, last, steps).tolist()))

    @classmethod
    def scaled_linear(cls, first: float = 0.00085, last: float = 0.012, steps: int = 1000) -> DiscreteVP:
        """Betas whose square roots are equally spaced, Stable Diffusion's."""
        return cls(tuple((np.linspace(first**0.5, last**0.5, steps) ** 2).tolist()))

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, most: float = 0.999) -> DiscreteVP:
        """alpha falls as a cosine of time; no beta is above `most`."""
        left = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2) ** 2
        return cls(tuple(np.minimum(1 - left[1:] / left[:-1], most).tolist()))

    def index(self, t: ArrayLike) -> Floats:
        """The noising step at time t, from 0, as models trained on integers number them; a fraction between two."""
        return np.maximum(np.asarray(t, dtype=np.float64) * len(self.betas) - 1, 0.0)

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        """Times, and what is spent by then; linear between."""
        return np.arange(len(self.betas) + 1) / len(self.betas), np.cumsum([0.0, *-np.log1p(-np.array(self.betas))])

    def spent(self, t: ArrayLike) -> Floats:
        return np.interp(np.asarray(t, dtype=np.float64), *self._knots)

    def beta(self, t: ArrayLike) -> Floats:
        times, spent = self._knots
        step = np.clip(np.searchsorted(times, t, side="left") - 1, 0, len(self.betas) - 1)
        return np.asarray(np.diff(spent)[step] * len(self.betas))

    def when(self, spent: Floats) -> Floats:
        times, knots = self._knots
        return np.interp(spent, knots, times)
