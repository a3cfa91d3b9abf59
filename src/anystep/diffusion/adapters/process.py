"""A diffusers scheduler's own loop as a process: the same numbers, forked, searched, paid and replayed.

A scheduler keeps its past in itself, for one batch at one step. Here each state keeps its own rows of that past, and a
scheduler is put together for every step, so that states at different steps live side by side.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anystep import keys as lineage
from anystep.diffusion.adapters.convention import Convention, convention_of, numbers
from anystep.diffusion.adapters.denoiser import Asked, require
from anystep.diffusion.denoiser import NULL
from anystep.diffusion.states import Noised
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost, Limit
from anystep.process import Floats, Status, Stepped
from anystep.stepwise import Moved, Stepwise


@dataclass(frozen=True)
class Frame:
    """A scheduler before one of its steps, without what belongs to rows: `slots` names where that goes, in order;
    a name with a number is an item of a list."""

    plain: Mapping[str, Any]
    slots: tuple[tuple[str, int | None], ...]
    random: bool = False


class Unrolled:
    """A scheduler with its timesteps set, as a function of the step and of rows: nothing is kept between calls."""

    def __init__(
        self, scheduler: Any, steps: int | None, shape: tuple[int, ...], dtype: torch.dtype, setting: Any, stepping: Any
    ) -> None:
        self.shape, self.stepping = shape, dict(stepping)
        self.base, self.frames = copy.deepcopy(scheduler), list[Frame]()
        try:
            self.seeded = "generator" in inspect.signature(scheduler.step).parameters
            self.base.set_timesteps(**({} if steps is None else {"num_inference_steps": steps}), **setting)
            self.timesteps = list(self.base.timesteps)
            self._learn(torch.zeros(1, *shape, dtype=dtype))
        except Exception as error:  # a scheduler is a program, and may fail in any way where it is called otherwise
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise UsageError(
                f"{type(scheduler).__name__} cannot be stepped as scheduler.step(output, timestep, sample): {reason}"
            ) from error
        self.kept = max(len(frame.slots) for frame in self.frames)
        self.random = any(frame.random for frame in self.frames)

    def _learn(self, x: Tensor) -> None:
        """Runs once without data, to see what the scheduler keeps at each step, and where it draws noise."""
        running = copy.deepcopy(self.base)
        said = x.repeat(1, 2 if learns_variance(running) else 1, *[1] * (x.ndim - 2))
        for t in self.timesteps:
            self._scaled(running, x, t)
            frame, generator = self._frame(running), torch.Generator().manual_seed(0)
            before = generator.get_state()
            self._call(running, said, t, x, [generator])
            self.frames.append(replace(frame, random=not torch.equal(before, generator.get_state())))

    def _mine(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.shape[1:] == self.shape and value.ndim == len(self.shape) + 1

    def _frame(self, scheduler: Any) -> Frame:
        plain, slots = dict[str, Any](), list[tuple[str, int | None]]()
        for name, value in vars(scheduler).items():
            if self._mine(value):
                slots.append((name, None))
                plain[name] = None
            elif isinstance(value, list):
                slots += [(name, i) for i, item in enumerate(value) if self._mine(item)]
                plain[name] = [None if self._mine(item) else item for item in value]
            else:
                plain[name] = value
        return Frame(plain, tuple(slots))

    def _at(self, index: int, memory: Tensor) -> Any:
        """The scheduler before step `index`, with these rows' past."""
        frame, scheduler = self.frames[index], copy.copy(self.base)
        vars(scheduler).update({n: list(v) if isinstance(v, list) else v for n, v in frame.plain.items()})
        for slot, (name, item) in enumerate(frame.slots):
            if item is None:
                setattr(scheduler, name, memory[:, slot])
            else:
                getattr(scheduler, name)[item] = memory[:, slot]
        return scheduler

    def shown(self, index: int, x: Tensor, memory: Tensor) -> Tensor:
        """x as the model is given it before step `index`."""
        return self._scaled(self._at(index, memory), x, self.timesteps[index])

    @staticmethod
    def _scaled(scheduler: Any, x: Tensor, t: Any) -> Tensor:
        """x as the model is given it; a scheduler that does not say gives it as it is."""
        scale = getattr(scheduler, "scale_model_input", None)
        return x if scale is None else scale(x, t)

    def step(self, index: int, said: Tensor, x: Tensor, memory: Tensor, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """Where a step leads, and the past that it leaves."""
        scheduler, t = self._at(index, memory), self.timesteps[index]
        self._scaled(scheduler, x, t)
        reached = self._call(scheduler, said, t, x, [torch.Generator().manual_seed(seed) for seed in seeds])
        left = x.new_zeros(len(x), self.kept, *self.shape)
        for slot, (name, item) in enumerate(self._frame(scheduler).slots[: self.kept]):
            value = getattr(scheduler, name)
            left[:, slot] = value if item is None else value[item]
        return reached, left

    def _call(self, scheduler: Any, said: Tensor, t: Any, x: Tensor, generators: list[torch.Generator]) -> Tensor:
        seeded = {"generator": generators} if self.seeded else {}
        reached: Tensor = scheduler.step(said, t, x, **self.stepping, **seeded, return_dict=False)[0]
        return reached.to(x.dtype)


class DiffusersProcess(Stepwise):
    """See `diffusers_loop`. States are `Noised`: x on the scheduler's own scale, in `memory` the model's last answer
    and the rows' part of the scheduler's past, in `clean` the prediction."""

    states = Noised

    def __init__(
        self,
        asked: Asked,
        unrolled: Unrolled,
        convention: Convention | None,
        condition: int,
        guidance: float,
        name: str,
    ) -> None:
        self.asked, self.unrolled, self.convention = asked, unrolled, convention
        self.condition, self.guidance, self.name = condition, guidance, name
        self.horizon, self.branches = len(unrolled.timesteps), unrolled.random
        self.told = numbers(torch.stack([torch.as_tensor(t) for t in unrolled.timesteps]))
        self.passes = 1 if guidance == 1.0 else 2
        self.spoken = 2 if learns_variance(unrolled.base) else 1  # tensors of x's size in one answer of the model

    def settings(self) -> str:
        base, n = self.unrolled.base, self.horizon
        return (
            f"{type(base).__name__}({dict(base.config)}) in {n} steps {self.unrolled.stepping}, "
            f"condition={self.condition}, guidance={self.guidance}"
        )

    def begin(self, keys: Keys) -> Noised:
        n, shape, asked = len(keys), self.asked.shape, self.asked
        drawn = lineage.normals(keys, 0, int(np.prod(shape))).reshape(n, *shape)
        x = torch.from_numpy(drawn).to(asked.device, asked.dtype) * getattr(self.unrolled.base, "init_noise_sigma", 1.0)
        memory = x.new_zeros(n, self.spoken + self.unrolled.kept, *shape)
        index, unknown = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        return Noised(x, torch.zeros_like(x), memory, index, self.told[index], unknown, np.full(n, self.condition))

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        states, n = self.begin(keys), len(keys)
        paid = limit.pay(np.arange(n), Cost(evaluations=self.passes), Cost(calls=1))
        rows = np.flatnonzero(paid)
        states = states.put(rows, self.predicted(states.take(rows)))
        return Stepped(states, np.zeros(n, dtype=np.int8), np.zeros(n), np.zeros(n), limit.used, ~paid)

    def price(self, states: Noised) -> list[Cost]:
        asked = (~states.known).astype(np.int64) + (states.index + 1 < len(self.told))
        return [Cost(evaluations=k * self.passes) for k in asked.tolist()]

    def once(self, states: Noised) -> Cost:
        return Cost(calls=int((~states.known).any()) + int((states.index + 1 < len(self.told)).any()))

    def free(self, states: Noised) -> NDArray[np.bool_]:
        return np.asarray(states.known & (states.index + 1 == len(self.told)))

    @torch.no_grad()
    def predicted(self, states: Noised) -> Noised:
        """With the model's answer, and the prediction that it amounts to, where they are missing."""
        rows = np.flatnonzero(~states.known)
        if len(rows) == 0:
            return states
        missing = states.take(rows)
        shown, memory = torch.empty_like(missing.x), missing.memory.clone()
        for index in np.unique(missing.index).tolist():
            own = np.flatnonzero(missing.index == index)
            shown[own] = self.unrolled.shown(index, missing.x[own], memory[own, self.spoken :])
        told = torch.from_numpy(self.told[missing.index]).to(shown.device)
        said = self._said(shown, told, torch.from_numpy(missing.condition).to(shown.device))
        memory[:, : self.spoken] = said.reshape(len(rows), self.spoken, *self.asked.shape)
        clean = missing.x
        if self.convention is not None:
            times = self.convention.times(self.told[missing.index])
            clean = self.convention.clean(shown, times, memory[:, 0])
        known = replace(missing, clean=clean, memory=memory, known=np.ones(len(rows), dtype=bool))
        return states.put(rows, known)

    def _said(self, shown: Tensor, told: Tensor, condition: Tensor) -> Tensor:
        """What the scheduler is to be told: the model's answer, guided where it is."""
        if self.passes == 1:
            return self.forward(shown, told, condition)
        none = torch.full_like(condition, NULL)
        both = self.forward(torch.cat([shown, shown]), torch.cat([told, told]), torch.cat([none, condition]))
        free, said = both.chunk(2)
        return free + self.guidance * (said - free)

    def forward(self, shown: Tensor, told: Tensor, condition: Tensor) -> Tensor:
        """What the model answers, in the channels that the scheduler reads."""
        return self.asked(shown, told, condition)[:, : self.spoken * self.asked.shape[0]]

    def advance(self, states: Noised, keys: Keys) -> Moved:
        states = self.predicted(states)
        x, left = torch.empty_like(states.x), torch.zeros_like(states.memory)
        for index in np.unique(states.index).tolist():
            own = np.flatnonzero(states.index == index)
            said = states.memory[own, : self.spoken].flatten(1, 2)
            past = states.memory[own, self.spoken :]
            with torch.no_grad():
                x[own], left[own, self.spoken :] = self.unrolled.step(
                    index, said, states.x[own], past, seeds_of(keys[own], index)
                )
        index = states.index + 1
        ended = index == len(self.told)
        times = np.where(ended, 0.0, self.told[np.minimum(index, len(self.told) - 1)])
        moved = Noised(x, x, left, index, times, ended, states.condition)
        n, status = len(states), np.where(ended, Status.DONE, Status.LIVE).astype(np.int8)
        return Moved(self.predicted(moved), status, np.zeros(n), np.zeros(n))

    def answers(self, states: Noised) -> tuple[Hashable, ...]:
        rows, done = states.x.flatten(1).to(torch.float64).cpu().tolist(), (states.index == len(self.told)).tolist()
        return tuple(tuple(row) if over else None for row, over in zip(rows, done, strict=True))

    def texts(self, states: Noised) -> tuple[str, ...]:
        return tuple(" ".join(f"{v:.3g}" for v in row[:16]) for row in states.clean.flatten(1).tolist())

    def load(self, data: bytes) -> Any:
        return Noised.read(data, self.asked.device)


def learns_variance(scheduler: Any) -> bool:
    """Whether the scheduler reads a variance from further channels of the model's answer."""
    return getattr(scheduler.config, "variance_type", None) in ("learned", "learned_range")


def seeds_of(keys: Keys, index: int) -> list[int]:
    """A generator's seed for each row's noise in the step after `index`."""
    drawn: Floats = lineage.uniforms(keys, index + 1)
    return [int(u * 2**53) for u in drawn]


def diffusers_loop(
    model: nn.Module,
    scheduler: Any,
    steps: int | None = None,
    condition: int | None = None,
    guidance: float = 1.0,
    setting: Mapping[str, Any] | None = None,
    stepping: Mapping[str, Any] | None = None,
    name: str | None = None,
    **asking: Any,
) -> DiffusersProcess:
    """Any diffusers model and scheduler as a process: `diffusers_loop(unet, scheduler, steps=20)`.

    Preserves diffusers' own loop (`set_timesteps`, `scale_model_input`, model, `step`) to rounding: each state ends
    where that loop would end from the same noise, whatever stands beside it. One step is one timestep of the
    scheduler, one evaluation, two with guidance; a Heun scheduler has nearly twice as many timesteps as `steps`.
    Noise inside steps comes from a generator for each row. Rewards on predictions read the scheduler's convention;
    where it has none of ours, they read the state itself.

    condition, guidance: as a pipeline's class or prompt and `guidance_scale`; 1 is the conditional model. setting: more
    for `set_timesteps`, such as {"mu": 0.8}. stepping: more for `step`, such as {"eta": 1.0}. asking: the options of
    `from_diffusers` that say how the model is called. Raises UsageError where diffusers is missing, and for a scheduler
    that draws noise without a generator.
    """
    require(scheduler)
    if hasattr(scheduler, "noise_sampler"):
        raise UsageError(f"{type(scheduler).__name__} draws one noise for a batch; use one that takes a generator.")
    options = {"classes": None, "null": None, "prompts": None, "ask": None, "shape": None, "least": 16}
    if unknown := sorted(set(asking) - set(options)):
        raise UsageError(f"diffusers_loop has no option {unknown[0]}; it takes {', '.join(options)} beside its own.")
    asked = Asked(model, **(options | asking))
    unrolled = Unrolled(scheduler, steps, asked.shape, asked.dtype, setting or {}, stepping or {})
    try:
        convention: Convention | None = convention_of(scheduler)
    except UsageError:
        convention = None
    wanted = NULL if condition is None else condition
    if condition is not None and not 0 <= condition < asked.classes:
        raise UsageError(f"condition={condition!r}: the model knows {asked.classes} conditions, from 0.")
    return DiffusersProcess(asked, unrolled, convention, wanted, guidance, name or type(model).__name__)
