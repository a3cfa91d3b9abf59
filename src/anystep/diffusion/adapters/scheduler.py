"""Our solvers as a diffusers scheduler, for a pipeline: `pipe.scheduler = to_diffusers(Heun(10), pipe.scheduler)`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.adapters.convention import Convention, convention_of
from anystep.diffusion.adapters.denoiser import require
from anystep.diffusion.solvers.solver import Here, Level, Solver
from anystep.errors import UsageError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin


class Asks(Exception):
    """Raised inside a solver's step where it needs an answer of the model that is not there yet."""

    def __init__(self, x: Tensor) -> None:
        super().__init__("the model is asked here next")
        self.x = x


class Driver:
    """A solver whose model is asked by somebody else, one answer a call.

    A step that asks the model in its middle is begun again with each answer that came, up to where the next is missing;
    it is a pure function, so that nothing but a little arithmetic is done twice.
    """

    def __init__(self, solver: Solver, convention: Convention) -> None:
        self.solver, self.convention, self.schedule = solver, convention, convention.schedule
        self.grid = solver.grid(self.schedule)
        self.asked = [t for i in range(solver.steps) for t in self._asked(i)]
        self.at, self.index = 0, 0
        self.x: Tensor | None = None
        self.memory: Tensor | None = None
        self.answers: list[Tensor] = []
        self.drawn: dict[int, Tensor] = {}

    def _asked(self, index: int) -> list[float]:
        """The times at which the model is asked from the point after `index` steps up to the next one."""
        times = [float(self.grid[index]), *(float(t[0]) for t in self.solver.stages(np.array([index]), self.grid))]
        return [t for t in times if not np.isnan(t)]

    def step(self, said: Tensor, x: Tensor, generator: Any) -> tuple[Tensor, Tensor]:
        """Where the model is asked next, given its answer at x, and what that answer predicts."""
        times = np.full(len(x), self.asked[self.at])
        clean = self.convention.clean(self.convention.shown(x, times), times, said)
        if not self.answers:
            self.x = x
        self.answers.append(clean)
        self.at += 1
        try:
            reached = self.solver.step(self._here(generator))
        except Asks as asks:
            return asks.x.to(x.dtype), clean
        self.memory, self.index, self.answers, self.drawn = reached.memory, self.index + 1, [], {}
        return reached.x.to(x.dtype), clean

    def _here(self, generator: Any) -> Here:
        x, index, steps = self.x, self.index, self.solver.steps
        assert x is not None
        given = iter(self.answers[1:])

        def level(offset: int) -> Level:
            return Level.at(np.full(len(x), self.grid[np.clip(index + offset, 0, steps)]), self.schedule, x)

        def model(at: Tensor, level: Level, rows: NDArray[np.bool_]) -> Tensor:
            found = next(given, None)
            if found is None:
                raise Asks(at)
            return found

        def draw(lane: int) -> Tensor:
            if lane not in self.drawn:
                from diffusers.utils.torch_utils import randn_tensor

                self.drawn[lane] = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            return self.drawn[lane]

        memory = x.new_zeros(len(x), self.solver.kept, *x.shape[1:]) if self.memory is None else self.memory.to(x.dtype)
        where = np.full(len(x), index, dtype=np.int64)
        return Here(x, self.answers[0], level(0), level(1), where, memory, level, model, draw)


def to_diffusers(solver: Solver, scheduler: Any) -> SchedulerMixin:
    """A scheduler that steps `solver`, for a pipeline whose model was trained as `scheduler` says.

    pipe.scheduler = to_diffusers(Heun(10), pipe.scheduler); pipe(num_inference_steps=10). The pipeline's number of
    steps replaces the solver's. Preserves what the solver preserves: from the same noise it ends where
    `sample(from_diffusers(model, scheduler), solver, ...)` ends, to rounding. Where the solver asks the model in the
    middle of a step, `timesteps` has an entry for that too, so that each of the pipeline's calls is one evaluation.
    Timesteps between those of training are real numbers, which diffusers models take. For pipelines that start from
    noise; the solver is not saved with the pipeline, only the scheduler's config is.

    Raises UsageError where diffusers is missing, for a scheduler that is none of ours, and for a solver that shows each
    row at a time of its own, since a pipeline has one time for all.
    """
    require(scheduler)
    if type(solver).shown is not Solver.shown:
        raise UsageError(f"{type(solver).__name__} shows rows at times of their own; a pipeline has one for all.")
    convention = convention_of(scheduler)
    from anystep.diffusion.adapters.stepping import SolverScheduler

    return SolverScheduler(solver, convention, scheduler)


def begun(solver: Solver, steps: int, convention: Convention) -> Driver:
    """A driver at its first step."""
    return Driver(solver if solver.steps == steps else replace(solver, steps=steps), convention)
