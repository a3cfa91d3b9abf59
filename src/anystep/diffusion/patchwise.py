"""Images made patch by patch as a process: each patch is drawn by a small flow, given those that are there.

Source: Li et al., "Autoregressive Image Generation without Vector Quantization" (NeurIPS 2024).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL
from anystep.diffusion.models.patch_net import PatchFlow, joined
from anystep.diffusion.schedules import Flow
from anystep.diffusion.spacing import Spacing, Uniform
from anystep.diffusion.step_annealing import StepAnnealing
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Status
from anystep.stepwise import Arrays, Moved, Stepwise


@dataclass(frozen=True, eq=False)
class Patched(Arrays):
    """n unfinished images. patches: (n, patches, pixels) float32, 0 where there is none yet. known: (n, patches).
    order: (n, patches), in which they are made. index: (n,) steps taken. condition: (n,), -1 for none."""

    patches: NDArray[np.float32]
    known: NDArray[np.bool_]
    order: NDArray[np.int64]
    index: NDArray[np.int64]
    condition: NDArray[np.int64]


class PatchProcess(Stepwise):
    """From an empty image to a whole one in `iterations` steps of one patch or more, each a flow of its own.

    A step reads the image once and then draws the next patches of the state's own random order, each from noise in as
    many head evaluations as `steps` says for its place. With one patch a step it preserves the model's law as head
    steps grow; patches of one step are drawn apart, which is an approximation. A state's children differ by their
    noise.

    model: what predicts. steps: head evaluations a patch, a number or `step_annealing(50, 5)`. iterations: by default
    one a patch; fewer make more patches in later steps, by the cosine rule of masked generation. condition: the
    class. scale: of classifier-free guidance of the head's velocity, 1 for none; otherwise twice the evaluations.
    spacing: the times of the head's steps; Uniform(shift=0.4) has more of them near the data, where narrow laws bend.
    order: 1 for Euler's steps, 2 for Adams and Bashforth's, at no more evaluations. Raises UsageError for a class
    that the model does not know, and iterations that the patches do not fill.
    """

    logp = "unknown"
    states = Patched

    def __init__(
        self,
        model: PatchFlow,
        steps: int | StepAnnealing = 50,
        iterations: int | None = None,
        condition: int | None = None,
        scale: float = 1.0,
        spacing: Spacing | None = None,
        order: Literal[1, 2] = 1,
    ) -> None:
        patches = model.shape.patches
        self.model, self.steps, self.scale, self.order, self.name = model, steps, scale, order, model.name
        self.horizon = patches if iterations is None else iterations
        if not 1 <= self.horizon <= patches:
            raise UsageError(f"PatchProcess(iterations={iterations!r}): 1 to {patches}, the number of patches.")
        if condition is not None and not 0 <= condition < model.classes:
            raise UsageError(f"PatchProcess(condition={condition!r}): {model.name} knows the classes 0 to 9.")
        self.condition = NULL if condition is None else condition
        self.made = masked_cosine(patches, self.horizon)
        annealed = steps if isinstance(steps, StepAnnealing) else StepAnnealing(steps, steps, "linear")
        self.heads = np.array(annealed.all(self.horizon))
        self.passes = 1 if scale == 1.0 else 2
        # One row a number of steps: where its head stands after each of them, 0 from the last one on.
        self.spacing, most = spacing or Uniform(), int(self.heads.max())
        self.grids = np.zeros((most + 1, most + 1))
        for n in set(self.heads.tolist()):
            self.grids[n, : n + 1] = self.spacing.grid(Flow(), n)

    def settings(self) -> str:
        head = f"{self.steps}, {self.spacing}, order={self.order}"
        return f"{head}, {self.horizon} iterations, condition={self.condition}, scale={self.scale}"

    def head_evaluations(self) -> int:
        """Of one whole image."""
        return int((self.heads * np.diff(self.made)).sum()) * self.passes

    def begin(self, keys: Keys) -> Patched:
        return self.empty(keys, np.full(len(keys), self.condition, dtype=np.int64))

    def empty(self, keys: Keys, condition: NDArray[np.int64]) -> Patched:
        """An empty image a key, with its order drawn."""
        n, shape = len(keys), self.model.shape
        drawn = np.stack([lineage.uniforms(keys, 0, lane) for lane in range(shape.patches)], -1)
        blank = np.zeros((n, shape.patches, shape.pixels), dtype=np.float32)
        order = np.argsort(drawn, axis=1, kind="stable").astype(np.int64)
        return Patched(blank, np.zeros((n, shape.patches), dtype=bool), order, np.zeros(n, dtype=np.int64), condition)

    def price(self, states: Patched) -> list[Cost]:
        model, count = self.model, np.diff(self.made)[states.index] * self.heads[states.index]
        flops = model.body_flops + count * model.head_flops
        return [
            Cost(evaluations=self.passes * (1 + n), flops=self.passes * f)
            for n, f in zip(count.tolist(), flops.tolist(), strict=True)
        ]

    def once(self, states: Patched) -> Cost:
        return Cost(calls=1 + int(self.heads[states.index].max()))

    @torch.no_grad()
    def advance(self, states: Patched, keys: Keys) -> Moved:
        n, made = len(states), np.diff(self.made)[states.index]
        owner = np.repeat(np.arange(n), made)  # of each patch that is drawn now
        turn = np.arange(len(owner)) - np.repeat(np.cumsum(made) - made, made)
        place = states.order[owner, self.made[states.index[owner]] + turn]
        drawn = self._draw(states, keys, owner, turn, place)
        patches, known = states.patches.copy(), states.known.copy()
        patches[owner, place], known[owner, place] = drawn.numpy(), True
        index = states.index + 1
        status = np.where(index == self.horizon, Status.DONE, Status.LIVE).astype(np.int8)
        moved = replace(states, patches=patches, known=known, index=index)
        return Moved(moved, status, np.zeros(n), np.zeros(n))

    def _draw(
        self, states: Patched, keys: Keys, owner: NDArray[np.int64], turn: NDArray[np.int64], place: NDArray[np.int64]
    ) -> Tensor:
        """The patches at `place` of the states `owner`, from noise to data in each state's own number of head steps."""
        told = self.told(states)[:, owner, place]
        pixels, heads = self.model.shape.pixels, self.heads[states.index[owner]]
        where = (states.index[owner] + 1) * self.model.shape.patches + turn
        x = torch.from_numpy(lineage.normals(keys[owner], where, pixels)).float()
        last = torch.zeros_like(x)
        for done in range(int(heads.max())):
            rows = np.flatnonzero(heads > done)
            before, t, then = (torch.from_numpy(self.grids[heads[rows], max(done + i, 0)]).float() for i in (-1, 0, 1))
            velocity, length = self.velocity(x[rows], t, told[:, rows]), (then - t)[:, None]
            bend = 0.0 if done == 0 or self.order == 1 else (velocity - last[rows]) / (t - before)[:, None]
            x[rows], last[rows] = x[rows] + length * (velocity + 0.5 * length * bend), velocity
        return x

    def told(self, states: Patched) -> Tensor:
        """(passes, n, patches, told): with the condition, and where it guides without."""
        patches, known = torch.from_numpy(states.patches), torch.from_numpy(states.known)
        conditions = torch.from_numpy(states.condition)
        every = torch.cat([conditions, torch.full_like(conditions, NULL)][: self.passes])
        told = self.model.told(patches.repeat(self.passes, 1, 1), known.repeat(self.passes, 1), every)
        return told.reshape(self.passes, len(states), *told.shape[1:])

    def velocity(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """(n, pixels), guided where it is; told: (passes, n, told)."""
        said = self.model.velocity(x.repeat(self.passes, 1), t.repeat(self.passes), told.flatten(0, 1))
        if self.passes == 1:
            return said
        given, free = said.chunk(2)
        return free + self.scale * (given - free)

    def images(self, states: Patched) -> Tensor:
        """(n, size, size), 0 where there is no patch yet."""
        return joined(torch.from_numpy(states.patches), self.model.shape.patch)

    def answers(self, states: Patched) -> tuple[Hashable, ...]:
        """A fingerprint of finished images: which pixels are ink."""
        dark, done = (self.images(states).flatten(1) > 0).numpy(), np.asarray(states.known.all(1))
        return tuple(bytes(np.packbits(row)).hex() if d else None for row, d in zip(dark, done, strict=True))

    def texts(self, states: Patched) -> tuple[str, ...]:
        return tuple("\n".join("".join(".#"[v > 0] for v in line) for line in image) for image in self.images(states))


def masked_cosine(patches: int, iterations: int) -> NDArray[np.int64]:
    """(iterations + 1,) how many patches are there after each step: all but cos(pi/2 share) of them, at least one more
    a step.

    Source: Chang et al., "MaskGIT: Masked Generative Image Transformer" (CVPR 2022).
    """
    there, found = 0, [0]
    for i in range(1, iterations + 1):
        wanted = patches - int(np.floor(patches * np.cos(np.pi / 2 * i / iterations) + 1e-9))
        there = min(max(wanted, there + 1), patches - (iterations - i))
        found.append(there)
    return np.array(found)


def sample_patches(
    model: PatchFlow, process: PatchProcess, conditions: NDArray[np.int64] | list[int], seed: int = 0
) -> tuple[Tensor, Cost]:
    """One finished image (n, size, size) a condition, and what all of them took."""
    limit, keys = Limit(Ledger(), model.name), lineage.roots(seed, (), np.arange(len(conditions)))
    states: Any = process.empty(keys, np.asarray(conditions, dtype=np.int64))
    states = process.step(states, keys, limit, "done").states
    return process.images(states), limit.used
