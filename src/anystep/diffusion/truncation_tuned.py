"""Where should a few steps stop? A pilot run says what each step of a grid would get wrong; the best grid is taken.

Source: the form, a grid that stops early and an ordinary solver on it, is "Hyperparameters are all you need: Using
five-step inference for an original diffusion model" (2025), arXiv 2510.02390. The choice by truncation errors is ours:
the paper's code computes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import Denoiser
from anystep.diffusion.process import DiffusionProcess
from anystep.diffusion.schedules import Schedule
from anystep.diffusion.solvers import DDIM, DPMpp2M, PredictorCorrector, Solver
from anystep.diffusion.spacing import FlowTime, Spacing
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Ledger, Limit
from anystep.process import Floats

POWERS = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
STOPS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4)


@dataclass(frozen=True)
class EarlyStop(Spacing):
    """Noise levels that end at `stop`, where the model is asked for the last time and its prediction is the sample.

    Between the schedule's last time and that level, the power-th roots of flow time sigma / (alpha + sigma) are equally
    far apart; then 0, which solvers reach by taking the prediction as it is. stop: a noise level sigma / alpha. power:
    1 for equal steps of flow time, more for smaller ones at the end.
    """

    stop: float = 0.1
    power: float = 1.2

    def __post_init__(self) -> None:
        if not self.stop > 0 or not self.power > 0:
            raise UsageError(f"{self!r}: stop and power are positive; EarlyStop(stop=0.1, power=1.2).")

    def grid(self, schedule: Schedule, steps: int) -> Floats:
        alpha, sigma = float(schedule.alpha(schedule.last)), float(schedule.sigma(schedule.last))
        first, last = sigma / (alpha + sigma), self.stop / (1 + self.stop)
        if not last < first:
            raise UsageError(f"{self!r}: the schedule starts at {schedule.ratio(schedule.last):g}, below the stop.")
        share = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
        u = (first ** (1 / self.power) + share * (last ** (1 / self.power) - first ** (1 / self.power))) ** self.power
        with np.errstate(divide="ignore"):
            times = schedule.time(np.asarray(u / (1 - u)))
        times[0] = schedule.last
        return np.append(times, 0.0)


@dataclass(frozen=True, eq=False)
class Pilot:
    """What a model predicted along fine solutions of its ODE.

    ratio: (k + 1,) levels sigma / alpha, descending to 0. clean: (k + 1, n, *shape) predictions there, the last the
    sample itself. spread: standard deviation of the samples. keys, classes: (n,) of the noises.
    """

    schedule: Schedule
    ratio: Floats
    clean: Tensor
    spread: float
    keys: Keys
    classes: NDArray[np.int64]

    def at(self, ratio: Floats) -> Tensor:
        """Predictions at other levels, linear in flow time between the pilot's; at infinite ones the first."""
        ours, u = _flow_time(self.ratio)[::-1], _flow_time(ratio)
        above = np.clip(np.searchsorted(ours, u), 1, len(ours) - 1)
        share = (u - ours[above - 1]) / (ours[above] - ours[above - 1])
        rows = len(ours) - 1 - above
        weight = torch.from_numpy(share).reshape(-1, *[1] * (self.clean.ndim - 1))
        return weight * self.clean[rows] + (1 - weight) * self.clean[rows + 1]


def pilot(
    denoiser: Denoiser, condition: Sequence[int] | None = None, rows: int = 64, steps: int = 64, seed: int = 0
) -> Pilot:
    """Fine solutions from `rows` noises, `steps` evaluations each. condition: a class a row, None for none."""
    solver = PredictorCorrector(steps, FlowTime(0.5))
    process = DiffusionProcess(denoiser, solver)
    keys = lineage.roots(seed, (), np.arange(rows))
    classes = np.full(rows, -1) if condition is None else np.resize(np.asarray(condition, dtype=np.int64), rows)
    states, clean = process.predicted(process.noise(keys, classes)), []
    for _ in range(steps):
        clean.append(states.clean)
        states = process.advance(states, keys).states
    made = torch.stack([*clean, states.x]).double().cpu()
    ratio = denoiser.schedule.ratio(process.grid)
    return Pilot(denoiser.schedule, ratio, made, float(made[-1].std(0).pow(2).mean().sqrt()), keys, classes)


def local_errors(found: Pilot, grid: Floats, order: int, fine: int = 24) -> Tensor:
    """(steps, n, *shape) what each step to a level above 0 gets wrong in x / alpha, started where it should be; the
    last row is what the prediction at the last level lacks.

    A step adds the integral of clean d(alpha / sigma). order 1 takes clean as it is at its start (DDIM), order 2
    extrapolates it from the last two levels (DPM++ 2M).
    """
    ratio = found.schedule.ratio(grid[:-1])
    said = found.at(ratio)
    errors = []
    for i in range(len(ratio) - 1):
        now, then = ratio[i], ratio[i + 1]
        edges = np.linspace(0.0 if np.isinf(now) else 1 / now, 1 / then, fine + 1)  # of alpha / sigma
        middle = 0.5 * (edges[1:] + edges[:-1])
        between = found.at(1 / middle).mean(0)  # the mean over equal slices of alpha / sigma
        taken = said[i]
        if order == 2 and i > 0 and np.isfinite(ratio[i - 1]):
            ahead = 0.5 * np.log(now / then) / np.log(ratio[i - 1] / now)
            taken = taken + ahead * (taken - said[i - 1])
        errors.append(then * (edges[-1] - edges[0]) * (taken - between))
    return torch.stack([*errors, said[-1] - found.clean[-1]])


def predicted_error(found: Pilot, grid: Floats, order: int) -> float:
    """How far samples of a solver on this grid are thought to lie from the exact ones: root mean square a pixel.

    Each step's error is carried to the end as the ODE of Gaussian data of the pilot's spread would carry it, and there
    they add up.
    """
    errors = local_errors(found, grid, order)
    ratio = np.append(found.schedule.ratio(grid[1:-1]), 0.0)
    carried = torch.from_numpy(found.spread / np.hypot(found.spread, ratio)).reshape(-1, *[1] * (errors.ndim - 1))
    return float((carried * errors).sum(0).pow(2).mean().sqrt())


def truncation_tuned_sampler(
    denoiser: Denoiser, steps: int, condition: Sequence[int] | None = None, rows: int = 64, seed: int = 0
) -> Solver:
    """The solver and the early-stopping grid that suit a model, found without training.

    For each solver (DDIM, DPM++ 2M, and the second-order predictor-corrector) the grid whose predicted error is least;
    of these the one whose samples lie nearest the pilot's, from the same noise. Costs a pilot of 64 evaluations a row
    and `steps` more for each solver, once. The sample is the last prediction: from the stop there is no step to less
    noise. Preserves nothing: it minimises the distance to the model's ODE at `steps` evaluations.

    denoiser: guided or not, as it will be used. condition: classes that the pilot's rows take in turn. Raises
    UsageError for fewer than 2 steps.
    """
    if steps < 2:
        raise UsageError(f"truncation_tuned_sampler(steps={steps}): steps is 2 or more; one step has no grid to tune.")
    found = pilot(denoiser, condition, rows, seed=seed)
    spacings = {order: best_spacing(found, steps, order) for order in (1, 2)}
    solvers = [
        DDIM(steps, spacings[1]),
        DPMpp2M(steps, spacings[2]),
        PredictorCorrector(steps, spacings[2], order=2),
    ]
    return min(solvers, key=lambda solver: measured_error(denoiser, found, solver))


def best_spacing(found: Pilot, steps: int, order: int) -> EarlyStop:
    """The early stop whose predicted error is least."""
    spacings = [EarlyStop(stop, power) for power, stop in product(POWERS, STOPS)]
    return min(spacings, key=lambda s: predicted_error(found, s.grid(found.schedule, steps), order))


def measured_error(denoiser: Denoiser, found: Pilot, solver: Solver) -> float:
    """Root mean square distance a pixel between a solver's samples and the pilot's, from the pilot's noise."""
    process = DiffusionProcess(denoiser, solver)
    states = process.step(
        process.noise(found.keys, found.classes), found.keys, Limit(Ledger(), "tuning"), "done"
    ).states
    return float((states.x.double().cpu() - found.clean[-1]).pow(2).mean().sqrt())


def _flow_time(ratio: Floats) -> Floats:
    return np.where(np.isinf(ratio), 1.0, ratio / (1 + np.where(np.isinf(ratio), 0.0, ratio)))
