"""Where a solver stops on its way from noise to data: a descending grid of times, the last exactly 0.

A spacing is a value with one function, `grid(schedule, steps)`, which gives steps + 1 times. A shift is applied there
and nowhere else, so that it cannot be applied twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from anystep.diffusion.schedules import Floats, Schedule
from anystep.errors import UsageError


class Spacing(ABC):
    """Chooses the times of a solver's steps."""

    @abstractmethod
    def grid(self, schedule: Schedule, steps: int) -> Floats:
        """(steps + 1,) times, descending from where sampling starts to exactly 0."""


@dataclass(frozen=True)
class Uniform(Spacing):
    """Equal steps of time, then shifted: t -> shift t / (1 + (shift - 1) t), on times as shares of the last.

    shift > 1 spends more of the steps where there is much noise, as large images want; 1 leaves the times as they are.

    Source of the shift: Esser et al., "Scaling Rectified Flow Transformers" (ICML 2024).
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < np.inf:
            raise UsageError(
                f"Uniform(shift={self.shift!r}): a shift is positive; Uniform(shift=3.0), or 1.0 for none."
            )

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        t = np.linspace(1.0, 0.0, steps + 1)
        return np.asarray(schedule.last * self.shift * t / (1 + (self.shift - 1) * t))


@dataclass(frozen=True)
class Karras(Spacing):
    """Noise levels whose rho-th roots are equally far apart, from `largest` to `smallest`, then 0.

    Noise levels are sigma / alpha, so the same grid serves every schedule. largest: by default that of the schedule's
    last time, but 80 at most.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (NeurIPS 2022), eq. 5.
    """

    rho: float = 7.0
    smallest: float = 0.002
    largest: float | None = None

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        top = start(schedule, self.largest)
        if not 0 < self.smallest < top or not 0 < self.rho < np.inf:
            raise UsageError(f"{self!r}: 0 < smallest < largest, rho is positive, and the schedule starts at {top:g}.")
        share = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
        low, high = self.smallest ** (1 / self.rho), top ** (1 / self.rho)
        levels = (high + share * (low - high)) ** self.rho
        return np.concatenate([schedule.time(levels), [0.0]])


@dataclass(frozen=True)
class LogSNR(Spacing):
    """Noise levels equally far apart in log(alpha / sigma), from `largest` to `smallest`, then 0.

    Each step divides the noise level by the same factor: what `Karras` tends to as rho grows. largest: by default that
    of the schedule's last time, but 80 at most.

    Source: Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling" (NeurIPS 2022), 3.3.
    """

    smallest: float = 0.002
    largest: float | None = None

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        top = start(schedule, self.largest)
        if not 0 < self.smallest < top:
            raise UsageError(f"{self!r}: 0 < smallest < largest, and the schedule starts at {top:g}.")
        levels = np.geomspace(top, self.smallest, steps) if steps > 1 else np.array([top])
        return np.concatenate([schedule.time(levels), [0.0]])


@dataclass(frozen=True)
class FlowTime(Spacing):
    """Equal steps of flow time, sigma / (scale alpha + sigma), from the schedule's last time to exactly 0.

    On a flow it is `Uniform(shift=scale)`; elsewhere the same noise levels. scale: the data's standard deviation,
    roughly; less of it spends more of the steps where there is little noise.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < np.inf:
            raise UsageError(f"FlowTime(scale={self.scale!r}): a scale is positive; FlowTime(scale=1.0).")

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        alpha, sigma = float(schedule.alpha(schedule.last)), float(schedule.sigma(schedule.last))
        u = np.linspace(sigma / (self.scale * alpha + sigma), 0.0, steps + 1)
        with np.errstate(divide="ignore"):
            times = schedule.time(self.scale * u / (1 - u))
        times[0] = schedule.last  # to the bit
        return times


@dataclass(frozen=True)
class Times(Spacing):
    """These times, descending, the last 0: `Times((1.0, 0.6, 0.2, 0.0))`."""

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        t = np.asarray(self.times, dtype=np.float64)
        if t.ndim != 1 or len(t) < 2 or t[-1] != 0 or not (np.diff(t) < 0).all():
            raise UsageError(f"Times{self.times!r}: times descend, and the last is 0; Times((1.0, 0.5, 0.0)).")

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        if self.times[0] > schedule.last:
            raise UsageError(f"{self!r}: {schedule!r} ends at t={schedule.last:g}, and no model knows times beyond.")
        if steps != len(self.times) - 1:
            raise UsageError(f"{len(self.times)} times make {len(self.times) - 1} steps, not {steps}.")
        return np.asarray(self.times, dtype=np.float64)


def start(schedule: Schedule, largest: float | None = None) -> float:
    """The noise level sigma / alpha to start from: the schedule's last, but 80 at most."""
    last = float(schedule.ratio(schedule.last))
    if largest is not None and not largest <= last * (1 + 1e-9):
        raise UsageError(f"largest={largest!r}: {schedule!r} ends at a noise level of {last:.4g}; no more than that.")
    return largest if largest is not None else min(last, 80.0)
