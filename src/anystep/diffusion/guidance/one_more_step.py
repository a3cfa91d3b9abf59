"""One more step: a step before the first, for a model whose schedule never was pure noise.

A VP model is trained with a little signal left at its last time, and sampled from noise without any. What the signal
would have said, the mean brightness above all, is lost. A small network that guesses the clean thing from nothing but
the condition puts it back, and the model stays as it is.

Source: Hu et al., "One More Step" (CVPR 2024), arXiv 2311.15744.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from anystep.diffusion.denoiser import NULL, Denoiser
from anystep.diffusion.guidance.guided import Guided
from anystep.diffusion.schedules import Floats, Schedule
from anystep.diffusion.solvers.solver import Solver
from anystep.diffusion.solvers.time_shift import TimeShiftSampler
from anystep.diffusion.spacing import Spacing
from anystep.errors import UsageError


@dataclass(frozen=True)
class ToPureNoise(Schedule):
    """`base`, and beyond its last time the signal goes on falling, at the slope it has there, until none is left.

    alpha^2 + sigma^2 stays what it is at base.last, so both and their rates are continuous on a VP schedule.
    """

    base: Schedule

    @property
    def last(self) -> float:  # type: ignore[override]
        alpha, (slope, _) = self.base.alpha(self.base.last), self.base.rates(self.base.last)
        return float(self.base.last - alpha / slope)

    @property
    def _ends(self) -> tuple[float, float]:
        """The signal and the total variance at the base's last time."""
        alpha, sigma = (float(f(self.base.last)) for f in (self.base.alpha, self.base.sigma))
        return alpha, alpha**2 + sigma**2

    def _beyond(self, t: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Times within the base, the share of its last signal that is left beyond, and which times are beyond."""
        t = np.asarray(t, dtype=np.float64)
        share = (self.last - t) / (self.last - self.base.last)
        return np.minimum(t, self.base.last), np.clip(share, 0.0, 1.0), t > self.base.last

    def alpha(self, t: ArrayLike) -> Floats:
        inside, share, beyond = self._beyond(t)
        return np.where(beyond, self._ends[0] * share, self.base.alpha(inside))

    def sigma(self, t: ArrayLike) -> Floats:
        inside, share, beyond = self._beyond(t)
        alpha, total = self._ends
        return np.where(beyond, np.sqrt(total - (alpha * share) ** 2), self.base.sigma(inside))

    def rates(self, t: ArrayLike) -> tuple[Floats, Floats]:
        inside, _, beyond = self._beyond(t)
        slope, rise = self.base.rates(inside)
        slope = np.where(beyond, self.base.rates(self.base.last)[0], slope)
        return slope, np.where(beyond, -self.alpha(t) * slope / self.sigma(t), rise)

    def time(self, ratio: ArrayLike) -> Floats:
        r = np.asarray(ratio, dtype=np.float64)
        alpha, total = self._ends
        top = float(self.base.ratio(self.base.last))
        share = np.sqrt(total / (1 + np.maximum(r, top) ** 2)) / alpha
        beyond = self.last - (self.last - self.base.last) * share
        return np.where(r > top, beyond, self.base.time(np.minimum(r, top)))


@dataclass(frozen=True)
class OneBefore(Spacing):
    """The times of `spacing` on the base of a `ToPureNoise`, and before them its last."""

    spacing: Spacing

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        if not isinstance(schedule, ToPureNoise):
            raise UsageError(f"{self!r} is for a model of OneMoreStep; sample(more, more.solver(DDIM(20)), n=16).")
        if steps < 2:
            raise UsageError(f"{steps} steps: one more step makes at least 2; more.solver(DDIM(1)) takes 2.")
        return np.concatenate([[schedule.last], self.spacing.grid(schedule.base, steps - 1)])


class OneMoreStep(Guided):
    """`model` as it is, and at pure noise, before its first step, what `first` expects of the condition.

    The first step goes from noise eps to alpha_T E[x_0 | condition] + sigma_T eps, with fresh noise under DDIM(eta=1)
    as in the paper and the same under deterministic solvers, which is the same law since `first` cannot learn anything
    from eps. Preserves the model's law up to what the start still lacks: its mean is that of the data for every
    condition, its variance sigma_T^2 instead of alpha_T^2 Var(x_0 | condition) + sigma_T^2. On Gaussian data of mean m
    and variance s^2 the samples have mean m exactly and variance s^2 sigma_T^2 / (alpha_T^2 s^2 + sigma_T^2); without
    the step their mean is m (1 - alpha_T s / sqrt(alpha_T^2 s^2 + sigma_T^2)). So nothing is gained where the condition
    does not tell what was lost.

    model: frozen, its schedule with signal left at its last time; guided or not. It sees the condition if it takes
    any. first: a denoiser of the same shape, asked at its own last time, which must be pure noise; it gives the
    classes. Use it with `solver(...)`. Cost: one evaluation of `first` beside the model's, charged its FLOPs. Raises
    UsageError
    for a model without signal left or a `first` that does not fit, and for solvers that stop between the two.
    """

    def __init__(self, model: Denoiser, first: Denoiser) -> None:
        left = float(model.schedule.alpha(model.schedule.last))
        if not left > 0:
            raise UsageError(
                f"{model.name} has no signal left at its last time, so it needs no step before; sample it."
            )
        if first.shape != model.shape or (model.classes and model.classes != first.classes):
            raise UsageError(
                f"OneMoreStep({model.name}, {first.name}): shapes {model.shape} and {first.shape}, classes "
                f"{model.classes} and {first.classes}; both must agree, or the model take no classes."
            )
        super().__init__(model, f"{model.name}-one-more")
        self.first, self.classes, self.schedule = first, first.classes, ToPureNoise(model.schedule)

    def solver(self, solver: Solver) -> Solver:
        """`solver`, with the step before its first."""
        if isinstance(solver, TimeShiftSampler):
            raise UsageError(
                "one more step goes inside: TimeShiftSampler(more.solver(DDIM(20))), not more.solver(TimeShiftSampler)."
            )
        return replace(solver, steps=solver.steps + 1, spacing=OneBefore(solver.spacing))

    def settings(self) -> str:
        return f"one_more_step({self.first.settings()}) before {self.model.settings()}"

    def begins(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(t > self.model.schedule.last)

    def evaluations(self, t: NDArray[np.float64]) -> NDArray[np.int64]:
        inside = np.minimum(t, self.model.schedule.last)
        asked = self.first.evaluations(np.full(len(t), self.first.schedule.last))
        return np.asarray(np.where(self.begins(t), asked, self.model.evaluations(inside)))

    def calls(self, t: NDArray[np.float64]) -> int:
        begins = self.begins(t)
        return self.model.calls(t[~begins]) + self.first.calls(np.full(begins.sum(), self.first.schedule.last))

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        times = t.cpu().numpy()
        begins = self.begins(times)
        if (begins & (times < self.schedule.last)).any():
            raise UsageError(f"{self.name} has one step before its first; sample(more, more.solver(DDIM(20)), n=16).")
        clean, rows = torch.zeros_like(x), torch.from_numpy(begins).to(x.device)
        if begins.any():
            at = torch.full_like(t[rows], self.first.schedule.last)
            clean[rows] = self.first(x[rows].to(self.first.dtype), at, condition[rows]).to(x.dtype)
        if not begins.all():
            told = condition if self.model.classes else torch.full_like(condition, NULL)
            clean[~rows] = self.model(x[~rows], t[~rows], told[~rows])
        return clean
