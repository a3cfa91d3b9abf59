"""Adams and Bashforth's second-order method: the slope goes on changing as it did over the last step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from anystep.diffusion.solvers.solver import Here, Reached, Solver, rows_where


@dataclass(frozen=True)
class AdamsBashforth2(Solver):
    """x + h (v + (h / 2 h_before) (v - v_before)), in the schedule's own time; the first step is Euler's.

    Second order with one evaluation a step: the error falls as 1 / steps^2, on uneven grids too. Made for flows, whose
    velocity changes slowly. Preserves the model's law as steps grow. steps: 1 or more.

    Source: Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I" (1993), III.5, for uneven grids.
    """

    kept: ClassVar[int] = 1

    def step(self, here: Here) -> Reached:
        now, then, past = here.now, here.then, here.levels(-1)
        slope, h = now.velocity(here.x, here.clean), then.t - now.t
        ahead = torch.where(rows_where(here, here.index > 0), 0.5 * h / (now.t - past.t), 0.0)
        x = here.x + h * (slope + ahead * (slope - here.memory[:, 0]))
        return Reached(x, memory=slope[:, None])
