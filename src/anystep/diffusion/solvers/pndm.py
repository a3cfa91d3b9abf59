"""PNDM: a fourth-order multistep method on the predicted noise, started by three Runge-Kutta steps, moved by DDIM.

Source: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (ICLR 2022), algorithm 2 (F-PNDM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.schedules import Schedule
from anystep.diffusion.solvers.solver import Here, Level, Reached, Solver, rows_where
from anystep.errors import UsageError
from anystep.process import Floats

WARM = 3  # steps that are Runge-Kutta's


@dataclass(frozen=True)
class PNDM(Solver):
    """F-PNDM: steps + 9 evaluations, since each of the first three steps takes four.

    Its coefficients are those of equal steps of time. Preserves the model's law as steps grow, at second order; the
    last step, to no noise, leaves an error of its own that falls with that step's size. steps: 4 or more. Raises
    UsageError for fewer, and where the first level holds no signal (a flow's t = 1): the clean thing behind a predicted
    noise is undefined there.
    """

    kept: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps <= WARM:
            raise UsageError(f"PNDM(steps={self.steps}): three steps start it, so steps is 4 or more; PNDM(steps=10).")

    def grid(self, schedule: Schedule) -> Floats:
        times = super().grid(schedule)
        if schedule.alpha(times[0]) == 0:
            raise UsageError(
                f"PNDM starts where some signal is left, and {schedule} has none at t={times[0]:g}; "
                "use AdamsBashforth2, or PNDM(steps, spacing=Karras())."
            )
        return times

    def stages(self, index: NDArray[np.int64], grid: Floats) -> list[Floats]:
        warm = index < WARM
        half = np.where(warm, 0.5 * (grid[index] + grid[index + 1]), np.nan)
        return [half, half, np.where(warm, grid[index + 1], np.nan)]

    def step(self, here: Here) -> Reached:
        now, then = here.now, here.then
        noise = now.noise(here.x, here.clean)
        first, second, third = here.memory.unbind(1)
        steady = (55 * noise - 59 * first + 37 * second - 9 * third) / 24
        warm = here.index < WARM
        if warm.any():
            steady = torch.where(rows_where(here, warm), self.started(here, noise, warm), steady)
        x = transferred(here.x, steady, now, then)
        return Reached(x, memory=torch.stack([noise, first, second], 1))

    def started(self, here: Here, noise: Tensor, rows: NDArray[np.bool_]) -> Tensor:
        """The noise that Runge and Kutta's four looks at a step make of it."""
        now, then = here.now, here.then
        half = Level.at(0.5 * (here.levels(0).times() + then.times()), now.schedule, here.x)
        looks, seen = [noise], noise
        for level in (half, half, then):
            ahead = transferred(here.x, seen, now, level)
            seen = level.noise(ahead, here.model(ahead, level, rows))
            looks.append(seen)
        return (looks[0] + 2 * looks[1] + 2 * looks[2] + looks[3]) / 6


def transferred(x: Tensor, noise: Tensor, now: Level, then: Level) -> Tensor:
    """x at another level, if it holds this noise: DDIM's step."""
    return then.alpha * (x - now.sigma * noise) / now.alpha + then.sigma * noise
