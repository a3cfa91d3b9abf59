"""Heun's method: Euler to the next level, then the mean of the slopes at both ends.

Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (NeurIPS 2022), algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.diffusion.solvers.solver import Here, Reached, Solver
from anystep.process import Floats


@dataclass(frozen=True)
class Heun(Solver):
    """Second order: the error falls as 1 / steps^2. The last step, to t = 0, is Euler's: no slope is defined there.

    Preserves the model's law as steps grow. steps: 1 or more; 2 steps - 1 evaluations.
    """

    def stages(self, index: NDArray[np.int64], grid: Floats) -> list[Floats]:
        return [np.where(index < self.steps - 1, grid[index + 1], np.nan)]

    def step(self, here: Here) -> Reached:
        now, then = here.now, here.then
        slope = now.velocity(here.x, here.clean)
        ahead = here.x + (then.t - now.t) * slope
        inner = here.index < self.steps - 1
        if not inner.any():
            return Reached(ahead)
        clean = here.model(ahead, then, inner)
        mean = here.x + (then.t - now.t) * 0.5 * (slope + then.velocity(ahead, clean))
        corrected = torch.as_tensor(inner, device=ahead.device).reshape(now.t.shape)
        return Reached(torch.where(corrected, mean, ahead))
