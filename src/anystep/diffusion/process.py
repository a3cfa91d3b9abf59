"""Denoising as a process: every search procedure runs on it as it runs on text.

Its states carry what the model predicts behind them, so a reward on that prediction costs nothing more, and a whole
sample costs what the solver's steps cost.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL, Denoiser
from anystep.diffusion.solvers.solver import Here, Level, Solver
from anystep.diffusion.states import Noised
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost, Limit
from anystep.process import Floats, Status, Stepped
from anystep.stepwise import Moved, Stepwise


class DiffusionProcess(Stepwise):
    """A denoiser and a solver: from noise to data in `solver.steps` steps.

    A start is noise at the schedule's last time and one prediction; each step leads to the next time of the solver's
    grid and predicts again, but for the last. Costs are evaluations: network rows, guidance and solver stages counted.
    Log-probabilities are densities of the noise drawn. With a solver that draws none, states do not branch.

    denoiser: the model, guided or not. solver: how to step. condition: the class of every state, None for none. Raises
    UsageError for a class that the model does not know.
    """

    logp = "density"
    states = Noised

    def __init__(
        self, denoiser: Denoiser, solver: Solver, condition: int | None = None, name: str | None = None
    ) -> None:
        if not isinstance(denoiser, Denoiser) or not isinstance(solver, Solver):
            raise UsageError(
                f"DiffusionProcess({denoiser!r}, {solver!r}): a denoiser, then a solver; "
                "DiffusionProcess(models.digits(), solvers.few_step(8), condition=3)."
            )
        if condition is not None and not (
            isinstance(condition, int | np.integer) and 0 <= condition < denoiser.classes
        ):
            known = f"0 to {denoiser.classes - 1}" if denoiser.classes else "none: leave condition out"
            raise UsageError(f"condition={condition!r}: {denoiser.name} knows the classes {known}.")
        self.model, self.solver, self.condition = denoiser, solver, NULL if condition is None else condition
        self.name, self.horizon, self.branches = name or denoiser.name, solver.steps, solver.random
        self.grid = solver.grid(denoiser.schedule)
        looks = np.linspace(0.0, denoiser.schedule.last, LOOKS + 1)[1:]
        if solver.shifts and len(np.unique(denoiser.evaluations(looks))) > 1:
            raise UsageError(
                f"{solver!r} chooses its times as it goes, and what {denoiser.name} costs depends on the time, so no "
                "step could be paid before it is taken; guide at every time, or use the solver without shifts."
            )

    def settings(self) -> str:
        return f"{self.model.settings()}, {self.solver!r}, condition={self.condition}"

    def merges(self) -> Hashable:
        return (DiffusionProcess, id(self.model), self.solver)

    def begin(self, keys: Keys) -> Noised:
        return self.noise(keys, np.full(len(keys), self.condition, dtype=np.int64))

    def noise(self, keys: Keys, condition: NDArray[np.int64]) -> Noised:
        """Pure noise, one row a key, with nothing predicted yet."""
        size = int(np.prod(self.model.shape))
        drawn = lineage.normals(keys, 0, size).reshape(len(keys), *self.model.shape)
        x = torch.from_numpy(drawn * self.model.schedule.sigma(self.grid[0])).to(self.model.device, self.model.dtype)
        index = np.zeros(len(keys), dtype=np.int64)
        memory = x.new_zeros(len(keys), self.solver.kept, *self.model.shape)
        times = self.solver.shown(x, index, self.grid, self.model.schedule)
        return Noised(x, torch.zeros_like(x), memory, index, times, np.zeros(len(keys), dtype=bool), condition)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.started(self.begin(keys), limit)

    def started(self, states: Noised, limit: Limit) -> Stepped:
        """Pure noise with what the model predicts behind it, where that is paid."""
        n = len(states)
        paid = limit.pay(
            np.arange(n),
            self._costs(self.model.evaluations(states.time), self.model.beside(states.time)),
            Cost(calls=self.model.calls(states.time)),
        )
        rows = np.flatnonzero(paid)
        states = states.put(rows, self.predicted(states.take(rows)))
        top = float(self.model.schedule.sigma(self.grid[0]))
        logp = _log_normal(states.x / top, np.full(n, top))
        return Stepped(states, np.zeros(n, dtype=np.int8), logp, np.zeros(n), limit.used, ~paid)

    def price(self, states: Noised) -> Cost | list[Cost]:
        rows, beside = np.zeros(len(states), dtype=np.int64), np.zeros(len(states))
        for times in self._asked(states):
            asked = ~np.isnan(times)
            rows[asked] += self.model.evaluations(times[asked])
            beside[asked] += self.model.beside(times[asked])
        return self._costs(rows, beside)

    def once(self, states: Noised) -> Cost:
        return Cost(calls=sum(self.model.calls(times[~np.isnan(times)]) for times in self._asked(states)))

    def free(self, states: Noised) -> NDArray[np.bool_]:
        return np.asarray(np.all([np.isnan(times) for times in self._asked(states)], axis=0))

    def _asked(self, states: Noised) -> list[Floats]:
        """The times at which the coming step asks the model, call by call, NaN for rows that are not asked."""
        index, following = states.index, np.minimum(states.index + 1, self.solver.steps)
        first = np.where(states.known, np.nan, states.time)
        last = np.where(following < self.solver.steps, self.grid[following], np.nan)
        return [first, *self.solver.stages(index, self.grid), last]

    def _costs(self, rows: NDArray[np.int64], beside: Floats) -> Cost | list[Cost]:
        flops = rows * self.model.flops() + beside
        costs = list(zip(rows.tolist(), flops.tolist(), strict=True))
        if len(set(costs)) == 1:
            return Cost(evaluations=costs[0][0], flops=costs[0][1])
        return [Cost(evaluations=n, flops=f) for n, f in costs]

    @torch.no_grad()
    def predicted(self, states: Noised) -> Noised:
        """With the model's prediction where it is missing; without noise, x itself is the prediction."""
        rows = np.flatnonzero(~states.known)
        if len(rows) == 0:
            return states
        missing = states.take(rows)
        clean = missing.x.clone()
        noisy = np.flatnonzero(missing.time > 0)
        if len(noisy):
            clean[noisy] = self._ask(missing.x[noisy], missing.time[noisy], missing.condition[noisy])
        known = Noised(
            missing.x, clean, missing.memory, missing.index, missing.time, np.ones(len(rows), bool), missing.condition
        )
        return states.put(rows, known)

    def _ask(self, x: Tensor, times: Floats, condition: NDArray[np.int64]) -> Tensor:
        device = self.model.device
        where = torch.from_numpy(np.array(times)).to(device), torch.from_numpy(np.array(condition)).to(device)
        return self.model(x.to(self.model.dtype), *where)

    def advance(self, states: Noised, keys: Keys) -> Moved:
        n, states = len(states), self.predicted(states)
        with torch.no_grad():
            here = self._here(states, keys)
            reached = self.solver.step(here)
            x = reached.x.to(self.model.dtype)
        logp = np.zeros(n)
        if reached.added is not None:
            logp = _log_normal(here.draw(0), reached.added.reshape(n).cpu().numpy())
        index = states.index + 1
        ended = index == self.solver.steps
        memory = states.memory if reached.memory is None else reached.memory.to(x.dtype)
        times = np.where(ended, 0.0, self.solver.shown(x, index, self.grid, self.model.schedule))
        moved = Noised(x, x, memory, index, times, np.zeros(n, dtype=bool), states.condition)
        moved, status = self.predicted(moved), np.where(ended, Status.DONE, Status.LIVE).astype(np.int8)
        lost = np.flatnonzero(~_finite(moved.x) | ~_finite(moved.clean))
        status[lost] = Status.FAILED
        errors = {int(row): f"{self.name}: the model or the solver left the numbers (NaN or infinity)." for row in lost}
        return Moved(moved, status, logp, np.zeros(n), errors)

    def _here(self, states: Noised, keys: Keys) -> Here:
        x, schedule, size = states.x, self.model.schedule, int(np.prod(self.model.shape))

        def level(offset: int) -> Level:
            return Level.at(self.grid[np.clip(states.index + offset, 0, self.solver.steps)], schedule, x)

        def model(at: Tensor, level: Level, rows: NDArray[np.bool_]) -> Tensor:
            picked, answer = np.flatnonzero(rows), torch.zeros_like(x)
            answer[picked] = self._ask(at[picked], level.times()[picked], states.condition[picked])
            return answer

        @cache
        def draw(lane: int) -> Tensor:
            drawn = lineage.normals(keys, (states.index + 1) * LANES + lane, size)
            return torch.from_numpy(drawn.reshape(tuple(x.shape))).to(x.device, x.dtype)

        now = Level.at(states.time, schedule, x)
        return Here(x, states.clean, now, level(1), states.index, states.memory, level, model, draw)

    def answers(self, states: Noised) -> tuple[Hashable, ...]:
        done = states.time == 0  # whatever solver brought it there
        return tuple(a if d else None for a, d in zip(self.model.answers(states.x), done, strict=True))

    def texts(self, states: Noised) -> tuple[str, ...]:
        return self.model.texts(states.clean)

    def load(self, data: bytes) -> Any:
        return Noised.read(data, self.model.device)


LOOKS = 256  # times at which prices are compared
LANES = 8  # draws of a row's size that one step may make


def _finite(rows: Tensor) -> NDArray[np.bool_]:
    return np.asarray(rows.isfinite().flatten(1).all(1).cpu().numpy())


def _log_normal(z: Tensor, spread: Floats) -> Floats:
    """Log-density of spread times z, where z is standard normal; 0 for rows without spread."""
    rows = z.flatten(1).to(torch.float64).cpu().numpy()
    with np.errstate(divide="ignore"):
        logs = -0.5 * (rows**2).sum(-1) - rows.shape[1] * (0.5 * np.log(2 * np.pi) + np.log(spread))
    return np.where(spread > 0, logs, 0.0)
