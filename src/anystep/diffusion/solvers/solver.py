"""The contract of a solver: from one noise level to the next, for rows that may stand at different levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.denoiser import spread
from anystep.diffusion.schedules import Schedule
from anystep.diffusion.spacing import Spacing, Uniform
from anystep.errors import UsageError
from anystep.process import Floats


@dataclass(frozen=True)
class Level:
    """Noise levels of n rows, as float64 tensors that multiply rows: time t, signal alpha, noise sigma."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    schedule: Schedule

    @classmethod
    def at(cls, times: Floats, schedule: Schedule, x: Tensor) -> Level:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        return cls(spread(times, x), spread(alpha, x), spread(sigma, x), schedule)

    @property
    def lam(self) -> Tensor:
        """log(alpha / sigma), half the log signal-to-noise ratio; infinite without noise."""
        return torch.log(self.alpha) - torch.log(self.sigma)

    def times(self) -> Floats:
        return np.asarray(self.t.flatten().cpu().numpy())

    def noise(self, x: Tensor, clean: Tensor) -> Tensor:
        """The noise that x holds, if `clean` lies behind it."""
        return (x - self.alpha * clean) / self.sigma

    def velocity(self, x: Tensor, clean: Tensor) -> Tensor:
        """dx/dt of the probability-flow ODE."""
        alpha_rate, sigma_rate = (spread(rate, x) for rate in self.schedule.rates(self.times()))
        return alpha_rate * clean + sigma_rate * self.noise(x, clean)


@dataclass(frozen=True)
class Here:
    """Where rows stand, and what a solver may use to move them.

    x, clean: (n, *shape), and what the model predicts behind x at `now`. then: the level to reach. index: (n,) of the
    step, from 0. memory: (n, k, *shape) that the last step left. levels: the level at an index counted from this row's
    own, so `levels(-1)` is where its last step began. model: model(x, level, mask) predicts elsewhere for the rows of
    a mask (the others' are left 0); each call is one of the solver's `stages`. draw: standard normals like x, the
    same for the same row and lane.
    """

    x: Tensor
    clean: Tensor
    now: Level
    then: Level
    index: NDArray[np.int64]
    memory: Tensor
    levels: Callable[[int], Level]
    model: Callable[..., Tensor]
    draw: Callable[[int], Tensor]


@dataclass(frozen=True)
class Reached:
    """Where a step led. memory: for the next step. added: (n, 1, ...) the standard deviation of the noise that it
    added, drawn in lane 0; None where it added none."""

    x: Tensor
    memory: Tensor | None = None
    added: Tensor | None = None


@dataclass(frozen=True)
class Solver(ABC):
    """Takes `steps` steps from noise to data, at times that `spacing` chooses.

    kept: how many tensors of a row's size it remembers. random: whether its steps draw noise, so that a state has
    different children.
    """

    steps: int = 20
    spacing: Spacing = Uniform()

    kept: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise UsageError(
                f"{type(self).__name__}(steps={self.steps!r}): steps is 1 or more; {type(self).__name__}(steps=20)."
            )

    @property
    def random(self) -> bool:
        return False

    @property
    def shifts(self) -> bool:
        """Whether the model is asked at times that the points themselves decide, which no price can know before."""
        return False

    def grid(self, schedule: Schedule) -> Floats:
        """(steps + 1,) descending times, the last 0."""
        return self.spacing.grid(schedule, self.steps)

    def stages(self, index: NDArray[np.int64], grid: Floats) -> list[Floats]:
        """The times at which the step after `index` steps asks the model, beside the point that it reaches: (n,) a
        call, NaN for rows that it does not ask for."""
        return []

    def shown(self, x: Tensor, index: NDArray[np.int64], grid: Floats, schedule: Schedule) -> Floats:
        """The times at which points after `index` steps are shown to the model: those of the grid."""
        return grid[index]

    @abstractmethod
    def step(self, here: Here) -> Reached:
        """One step of every row, from `here.now` to `here.then`."""


def rows_where(here: Here, rows: NDArray[np.bool_]) -> Tensor:
    """A mask of rows that chooses between tensors like x."""
    return torch.as_tensor(rows, device=here.x.device).reshape(here.now.t.shape)
