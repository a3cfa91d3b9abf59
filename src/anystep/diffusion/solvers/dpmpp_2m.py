"""DPM-Solver++(2M): the predicted clean thing, extrapolated from the last two predictions, mixed in exactly.

Source: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models" (2022),
arXiv 2211.01095, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anystep.diffusion.solvers.solver import Here, Reached, Solver, rows_where


@dataclass(frozen=True)
class DPMpp2M(Solver):
    """(sigma' / sigma) x + (alpha' - alpha sigma' / sigma) d: d extrapolates the clean thing in log(alpha / sigma).

    Second order with one evaluation a step: the error falls as 1 / steps^2. The first step has no past and the last, to
    no noise, is infinitely long in log(alpha / sigma): both are of first order, DDIM's. Depends on noise levels alone,
    so that VP, VE and flow models take it alike. Preserves the model's law as steps grow. steps: 1 or more.
    """

    kept: ClassVar[int] = 1

    def step(self, here: Here) -> Reached:
        now, then, past = here.now, here.then, here.levels(-1)
        ahead = torch.where(rows_where(here, here.index > 0), half_ratio(now.lam - past.lam, then.lam - now.lam), 0.0)
        clean = here.clean + ahead * (here.clean - here.memory[:, 0])
        shrink = then.sigma / now.sigma
        x = shrink * here.x + (then.alpha - now.alpha * shrink) * clean
        return Reached(x, memory=here.clean[:, None])


def half_ratio(before: Tensor, coming: Tensor) -> Tensor:
    """How far to extrapolate: half the coming step over the one before, and not at all where either is infinite."""
    return torch.where(torch.isfinite(before) & torch.isfinite(coming), 0.5 * coming / before, 0.0)
