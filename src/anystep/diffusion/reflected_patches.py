"""CoRe^2 for images made patch by patch: a small network learns what guidance makes of the head's velocity.

The head's velocity stands for the logits of an autoregressive model over codes: patches are numbers here, not codes.

Source: "CoRe^2: Collect, Reflect and Refine to Generate Better and Faster" (2025), arXiv 2503.09662.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.diffusion.denoiser import weights_of
from anystep.diffusion.guidance.collect_reflect_refine import LEAST, WeakRecipe
from anystep.diffusion.models.patch_net import PatchFlow
from anystep.diffusion.patchwise import Patched, PatchProcess, sample_patches
from anystep.errors import UsageError
from anystep.ledger import Cost


@dataclass(frozen=True)
class PatchTrajectories:
    """What guidance answered, a head evaluation a row: (n, pixels) velocities `given` the class and `guided`, of noisy
    patches `x` (n, pixels) at `t` (n,), of which the body told (n, told) with the class."""

    given: Tensor
    guided: Tensor
    x: Tensor
    t: Tensor
    told: Tensor


class _Collecting(PatchProcess):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.kept: list[tuple[Tensor, ...]] = []

    def velocity(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        given, guided = self.model.velocity(x, t, told[0]), super().velocity(x, t, told)
        self.kept.append((given, guided, x, t, told[0]))
        return guided


def collect_patches(
    model: PatchFlow, scale: float, conditions: Sequence[int], seed: int = 0, **options: Any
) -> PatchTrajectories:
    """What guidance says on the way to one image of each condition; options: those of `PatchProcess`.

    Raises UsageError without conditions, and at scale 1, where nothing is guided.
    """
    if len(conditions) == 0 or scale == 1.0:
        raise UsageError(
            f"collect_patches(scale={scale!r}) of {len(conditions)} conditions keeps nothing: a scale other than 1 "
            "and a class or more; collect_patches(model, 2.0, range(10))."
        )
    process = _Collecting(model, scale=scale, **options)
    sample_patches(model, process, list(conditions), seed)
    return PatchTrajectories(*(torch.cat(parts) for parts in zip(*process.kept, strict=True)))


class WeakHead(nn.Module):
    """(n, pixels) velocities given a class to guided ones, from what the conditional pass has: the velocity, its own
    input and what the body told. At first the same."""

    def __init__(self, pixels: int, told: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * pixels + told + 3, width)
        self.inner, self.leave = nn.Linear(width, width), nn.Linear(width, pixels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, given: Tensor, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        waves = torch.stack([t, (3 * t).sin(), (3 * t).cos()], -1)
        h = F.silu(self.enter(torch.cat([given, x, told, waves], 1)))
        out: Tensor = given + self.leave(F.silu(self.inner(h)))
        return out

    def flops(self) -> float:
        return 2.0 * sum(m.weight.numel() for m in (self.enter, self.inner, self.leave))


def reflect_patches(kept: PatchTrajectories, model: PatchFlow, recipe: WeakRecipe | None = None) -> WeakHead:
    """A weak head, trained by squared error to answer as guidance did on the trajectories."""
    recipe = recipe or WeakRecipe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        weak = WeakHead(model.shape.pixels, model.shape.told, recipe.width)
    draw, optimiser = torch.Generator().manual_seed(recipe.seed + 1), torch.optim.Adam(weak.parameters(), recipe.rate)
    for update in range(recipe.updates):
        optimiser.param_groups[0]["lr"] = recipe.rate * (1 - update / recipe.updates)
        rows = torch.randint(len(kept.x), (recipe.batch,), generator=draw)
        said = weak(kept.given[rows], kept.x[rows], kept.t[rows], kept.told[rows])
        loss = F.mse_loss(said, kept.guided[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return weak.eval().requires_grad_(False)


class ReflectedPatches(PatchProcess):
    """W + refinement (guided - W) as the head's velocity, where W is what the weak head makes of the one with a class.

    Preserves nothing, as all guidance. refinement 0 is the weak head alone, for one evaluation of the body and of the
    head each; 1 is guidance at `scale` to the bit; above 1 it goes on past it.

    weak: from `reflect_patches`. since: it refines at times of this and above (1 is noise), for two head evaluations;
    below, the weak head answers alone. The weak head is no evaluation, but its FLOPs are charged. options: those of
    `PatchProcess`, and every image needs a class. Raises UsageError for a refinement that is not finite, and for an
    image without a class.
    """

    def __init__(
        self,
        model: PatchFlow,
        weak: WeakHead,
        scale: float,
        refinement: float = 1.5,
        since: float = 0.0,
        **options: Any,
    ) -> None:
        if not np.isfinite(refinement):
            raise UsageError(f"refinement={refinement!r}: a number; 0.0 for the weak head alone, 1.5 to refine.")
        super().__init__(model, scale=scale, **options)
        self.name, self.weak, self.refinement, self.since = f"{model.name}-refined", weak, float(refinement), since
        self.passes = 1 if refinement == 0.0 else 2  # of the body
        # By a patch's number of head steps: how many of them refine, at the times that `velocity` is asked.
        early = (self.grids[:, :-1].astype(np.float32) >= np.float32(since)) & (refinement != 0.0)
        self.refines = np.array([int(early[n, :n].sum()) for n in range(len(self.grids))])

    def settings(self) -> str:
        net = weights_of(self.weak.state_dict())
        return f"refined({net}, refinement={self.refinement}, since={self.since}) as {super().settings()}"

    def head_evaluations(self) -> int:
        """Of one whole image."""
        return int(((self.heads + self.refines[self.heads]) * np.diff(self.made)).sum())

    def price(self, states: Patched) -> list[Cost]:
        model, made, heads = self.model, np.diff(self.made)[states.index], self.heads[states.index]
        alone, twice = made * heads, made * (heads + self.refines[heads])
        flops = self.passes * model.body_flops + twice * model.head_flops + alone * self.weak.flops()
        return [Cost(evaluations=self.passes + n, flops=f) for n, f in zip(twice.tolist(), flops.tolist(), strict=True)]

    def told(self, states: Patched) -> Tensor:
        if (states.condition < 0).any():
            raise UsageError(f"{self.name} needs a class in every image; sample_patches(model, process, [3] * 16).")
        return super().told(states)

    def velocity(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        n, rows = len(x), torch.from_numpy(np.flatnonzero((t.numpy() >= np.float32(self.since)) & (self.passes == 2)))
        both = torch.cat([told[0], told[-1][rows]])
        said = self.model.velocity(torch.cat([x, x[rows]]), torch.cat([t, t[rows]]), both)
        given, free = said[:n], said[n:]
        answer = self.reflected(given, x, t, told[0])
        # From the strong answer, as guidance makes it: refinement 1 is then that to the bit.
        strong = free + self.scale * (given[rows] - free)
        answer[rows] = strong + (self.refinement - 1.0) * (strong - answer[rows])
        return answer

    def reflected(self, given: Tensor, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """What the weak head makes of velocities given a class."""
        n = len(x)
        fill = torch.arange(max(n, LEAST)) % n
        said: Tensor = self.weak(given[fill], x[fill], t[fill], told[fill])
        return said[:n].clone()
