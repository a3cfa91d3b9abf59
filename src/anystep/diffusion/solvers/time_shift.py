"""The time-shift sampler: after a step, the state is shown to the model at the time whose noise level it really has.

Source: Li et al., "Alleviating Exposure Bias in Diffusion Models through Sampling with Shifted Time Steps" (ICLR 2024),
arXiv 2305.15583, algorithm 3; the other two forms are those of its released code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.schedules import Schedule
from anystep.diffusion.solvers.pndm import PNDM
from anystep.diffusion.solvers.solver import Here, Level, Reached, Solver
from anystep.errors import UsageError
from anystep.process import Floats

LOOKS = 101  # times that are compared in a window


@dataclass(frozen=True)
class TimeShiftSampler(Solver):
    """A solver whose points are shown to the model, and go on, at the time in a window that fits their variance best.

    After a step to time t, the variance of each row over its own dimensions is compared with sigma^2 + data alpha^2 at
    times in [t - window / 2, t + window / 2]; the closest is the time of the next call and the next step's start. Never
    the first point's, and none at or below `cutoff`; times stay between the next of the grid and the schedule's last,
    and for a base that divides by the way from its last point, half a step below that. Not for a model whose cost
    depends on the time, such as guidance in an interval: a step is paid before its end's time is known.
    Costs no evaluation. Preserves nothing: where the model's own errors leave too much noise or too little it answers
    that, on exact models it adds an error of its own. Window 0 is `base`, to the bit.

    base: any solver; steps and spacing are its own. window, cutoff: in the schedule's time: 0.03 is 30 of 1,000 steps.
    data: the data's variance a dimension; the paper takes 0, which is fair while alpha is small. form: "state" is the
    paper's; "network" shifts the time that the model is told and nothing else; "target" searches before the step, with
    the state it starts from, and steps to that time instead. Raises UsageError for a negative window or cutoff.
    """

    base: Solver = None  # type: ignore[assignment]
    window: float = 0.03
    cutoff: float = 0.3
    data: float = 0.0
    form: Literal["state", "network", "target"] = "state"

    def __init__(
        self,
        base: Solver,
        window: float = 0.03,
        cutoff: float = 0.3,
        data: float = 0.0,
        form: Literal["state", "network", "target"] = "state",
    ) -> None:
        if not isinstance(base, Solver) or window < 0 or cutoff < 0 or data < 0:
            raise UsageError(
                "TimeShiftSampler(base, window, cutoff, data): a solver and three numbers of 0 or more; "
                "TimeShiftSampler(DDIM(10), window=0.03, cutoff=0.3)."
            )
        if form not in ("state", "network", "target"):
            raise UsageError(f"TimeShiftSampler(form={form!r}): form is 'state', 'network' or 'target'.")
        values: dict[str, Any] = {"steps": base.steps, "spacing": base.spacing, "base": base, "window": window}
        for name, value in (values | {"cutoff": cutoff, "data": data, "form": form}).items():
            object.__setattr__(self, name, value)

    @property
    def kept(self) -> int:  # type: ignore[override]
        return self.base.kept

    @property
    def random(self) -> bool:
        return self.base.random

    @property
    def shifts(self) -> bool:
        return self.window > 0 or self.base.shifts

    def grid(self, schedule: Schedule) -> Floats:
        return self.base.grid(schedule)

    def stages(self, index: NDArray[np.int64], grid: Floats) -> list[Floats]:
        return self.base.stages(index, grid)

    def shown(self, x: Tensor, index: NDArray[np.int64], grid: Floats, schedule: Schedule) -> Floats:
        times = self.base.shown(x, index, grid, schedule)
        return times if self.form == "target" else self.shifted(x, times, index, grid, schedule)

    def shifted(self, x: Tensor, times: Floats, index: NDArray[np.int64], grid: Floats, schedule: Schedule) -> Floats:
        """(n,) the time, near `times`, at which noised data has the variance that rows have."""
        moves = (index > 0) & (times > self.cutoff) & (self.window > 0)
        if not moves.any():
            return times
        if x[0].numel() < 2:
            raise UsageError("TimeShiftSampler reads a row's variance, so rows must have 2 numbers or more.")
        rows = x.detach().flatten(1)[torch.as_tensor(moves)].double().cpu().numpy()
        variance = rows.var(-1, ddof=1)
        least = grid[np.minimum(index[moves] + 1, len(grid) - 1)]
        around = times[moves][:, None] + self.window * np.linspace(-0.5, 0.5, LOOKS)
        looks = np.minimum(np.maximum(around, 0.5 * (least + times[moves])[:, None]), schedule.last)
        if self.base.kept and not isinstance(self.base, PNDM):  # whose weights read no times; others divide by the way
            looks = np.minimum(looks, 0.5 * (grid[index[moves] - 1] + times[moves])[:, None])
        gap = np.abs(variance[:, None] - schedule.sigma(looks) ** 2 - self.data * schedule.alpha(looks) ** 2)
        found = times.copy()
        found[moves] = looks[np.arange(len(looks)), gap.argmin(1)]
        return found

    def step(self, here: Here) -> Reached:
        schedule = here.now.schedule
        if self.form == "network":  # the noise that was seen, at the level where the state is thought to be
            seen, now = here.now.noise(here.x, here.clean), here.levels(0)
            clean = torch.where(now.alpha > 0, (here.x - now.sigma * seen) / now.alpha, here.clean)
            same = torch.as_tensor(here.now.times() == now.times(), device=here.x.device).reshape(now.t.shape)
            return self.base.step(replace(here, now=now, clean=torch.where(same, here.clean, clean)))
        if self.form == "target":
            ends = here.index + 1 == self.steps
            grid = self.grid(schedule)
            aim = self.shifted(here.x, here.then.times(), np.where(ends, 0, here.index + 1), grid, schedule)
            return self.base.step(replace(here, then=Level.at(aim, schedule, here.x)))
        return self.base.step(here)
