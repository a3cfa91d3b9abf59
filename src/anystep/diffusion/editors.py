"""Processes that disturb states instead of denoising them: what a search over noises asks for, `Step(by=...)`.

What comes out of them has no prediction yet; the next denoising step pays for it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.process import DiffusionProcess
from anystep.diffusion.solvers.solver import Level
from anystep.diffusion.states import Noised
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.process import Floats, Status
from anystep.stepwise import Moved, Stepwise


class Editor(Stepwise):
    """A process on the states of `process`, without an end and without cost: no model is asked."""

    logp = "density"
    states = Noised

    def __init__(self, process: DiffusionProcess, name: str) -> None:
        self.process, self.name = process, f"{name} of {process.name}"

    def begin(self, keys: Keys) -> Noised:
        return self.process.begin(keys)

    def free(self, states: Noised) -> NDArray[np.bool_]:
        return np.ones(len(states), dtype=bool)

    def drawn(self, states: Noised, keys: Keys) -> Tensor:
        size = int(np.prod(self.process.model.shape))
        return torch.from_numpy(lineage.normals(keys, states.index, size).reshape(tuple(states.x.shape)))

    @abstractmethod
    def moved(self, states: Noised, keys: Keys) -> tuple[Tensor, NDArray[np.int64], Floats]:
        """The disturbed x, in float64, after how many steps it stands, and the log-density of what was added, (n,)."""

    def advance(self, states: Noised, keys: Keys) -> Moved:
        x, index, logp = self.moved(states, keys)
        blank, process, n = torch.zeros_like(states.x), self.process, len(states)
        x = x.to(states.x.device, states.x.dtype)
        times = process.solver.shown(x, index, process.grid, process.model.schedule)
        unknown = np.zeros(n, dtype=bool)
        noisier = Noised(x, blank, torch.zeros_like(states.memory), index, times, unknown, states.condition)
        return Moved(noisier, np.full(n, Status.LIVE, dtype=np.int8), logp, np.zeros(n))

    def answers(self, states: Noised) -> tuple[Hashable, ...]:
        return self.process.answers(states)

    def load(self, data: bytes) -> Any:
        return self.process.load(data)


class NearbyNoise(Editor):
    """A state's noise, turned by a fixed angle in a random direction: its length stays, the cosine is `cosine`.

    Noise y = |x| (cosine u + sqrt(1 - cosine^2) w), u = x / |x| and w uniform among the directions orthogonal to it, is
    as likely as x, and leaves the noise's law as it is. For states that have taken no step: others are no noise any
    more, and fail. cosine: in [-1, 1); 0.95 is near. Raises UsageError for another, and for models of one number.

    Source: Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps" (2025), arXiv
    2501.09732, which gives no formula; one number in place of its distance, since lengths depend on the dimension.
    """

    def __init__(self, process: DiffusionProcess, cosine: float = 0.95) -> None:
        if not -1 <= cosine < 1:
            raise UsageError(f"NearbyNoise(cosine={cosine!r}): a cosine in [-1, 1); NearbyNoise(process, cosine=0.95).")
        if int(np.prod(process.model.shape)) < 2:
            raise UsageError("NearbyNoise turns a noise: the model must have rows of 2 numbers or more.")
        super().__init__(process, f"noise at cosine {cosine:g}")
        self.cosine = float(cosine)

    def settings(self) -> str:
        return f"cosine={self.cosine}, {self.process.settings()}"

    def moved(self, states: Noised, keys: Keys) -> tuple[Tensor, NDArray[np.int64], Floats]:
        x = states.x.detach().cpu().to(torch.float64).flatten(1)
        z = self.drawn(states, keys).flatten(1)
        length = x.norm(dim=1, keepdim=True)
        along = x / length
        across = z - (z * along).sum(1, keepdim=True) * along
        across = across / across.norm(dim=1, keepdim=True)
        turned = length * (self.cosine * along + np.sqrt(1 - self.cosine**2) * across)
        return turned.reshape(tuple(states.x.shape)), np.zeros(len(states), dtype=np.int64), np.zeros(len(states))

    def advance(self, states: Noised, keys: Keys) -> Moved:
        moved, late = super().advance(states, keys), np.flatnonzero(states.index > 0)
        if not len(late):
            return moved
        status = moved.status.copy()
        status[late] = Status.FAILED
        errors = {int(row): f"{self.name}: this state has taken steps; give it starts." for row in late}
        return Moved(moved.states.put(late, states.take(late)), status, moved.logp, moved.logw, errors)


class Renoise(Editor):
    """A state `back` steps noisier than it is, by fresh noise: a draw of the forward process; of a finished state too.

    Denoising by as many steps leaves the model's law as it is, up to the solver's error. back: 1 or more; a state that
    has taken fewer starts again from pure noise. Raises UsageError for another.
    """

    def __init__(self, process: DiffusionProcess, back: int) -> None:
        if not isinstance(back, int) or not 1 <= back <= process.solver.steps:
            most = process.solver.steps
            raise UsageError(f"Renoise(back={back!r}): 1 to {most} steps back, as in Renoise(process, back=1).")
        super().__init__(process, f"{back} steps noisier")
        self.back = back

    def settings(self) -> str:
        return f"back={self.back}, {self.process.settings()}"

    def moved(self, states: Noised, keys: Keys) -> tuple[Tensor, NDArray[np.int64], Floats]:
        index, schedule, grid = np.maximum(states.index - self.back, 0), self.process.model.schedule, self.process.grid
        x = states.x.detach().cpu().to(torch.float64)
        now, then = Level.at(states.time, schedule, x), Level.at(grid[index], schedule, x)
        # Pure noise holds no signal to keep: a start whose level is 0 / 0 is drawn afresh.
        left = torch.where(then.alpha > 0, then.alpha / now.alpha, 0.0)
        added = torch.sqrt((then.sigma**2 - (left * now.sigma) ** 2).clamp_min(0.0))
        z = self.drawn(states, keys)
        return left * x + added * z, index, _density(z, added)


def _density(z: Tensor, added: Tensor) -> Floats:
    """Log-density of added times z, where z is standard normal; 0 where nothing is added."""
    rows, spread = z.flatten(1), added.flatten()
    logs = -0.5 * (rows**2).sum(-1) - rows.shape[1] * (0.5 * np.log(2 * np.pi) + spread.log())
    return np.asarray(torch.where(spread > 0, logs, 0.0).numpy())
