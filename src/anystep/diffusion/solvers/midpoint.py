"""The midpoint method: half a step by Euler, then a whole one with the slope found there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep.diffusion.solvers.solver import Here, Level, Reached, Solver
from anystep.process import Floats


@dataclass(frozen=True)
class Midpoint(Solver):
    """Second order in the schedule's own time, to the last step: the model is never asked at t = 0.

    Preserves the model's law as steps grow: the error falls as 1 / steps^2. steps: 1 or more, two evaluations each.
    """

    def stages(self, index: NDArray[np.int64], grid: Floats) -> list[Floats]:
        return [0.5 * (grid[index] + grid[index + 1])]

    def step(self, here: Here) -> Reached:
        now, then = here.now, here.then
        half = Level.at(0.5 * (here.levels(0).times() + then.times()), now.schedule, here.x)
        middle = here.x + (half.t - now.t) * now.velocity(here.x, here.clean)
        clean = here.model(middle, half, here.index >= 0)
        return Reached(here.x + (then.t - now.t) * half.velocity(middle, clean))
