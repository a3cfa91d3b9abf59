"""CoRe^2: a small network learns what guidance does, stands in for it at half the evaluations, and is then improved on.

Collect what classifier-free guidance answers along its own paths; reflect it in a weak network that sees the
conditional prediction alone; refine by moving away from what the weak one says, towards what guidance says.

Source: "CoRe^2: Collect, Reflect and Refine to Generate Better and Faster" (2025), arXiv 2503.09662.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.diffusion.denoiser import NULL, Denoiser, spread, weights_of
from anystep.diffusion.guidance.classifier_free import ClassifierFree
from anystep.diffusion.sampling import sample
from anystep.diffusion.solvers.solver import Solver
from anystep.errors import UsageError

LEAST = 16  # rows of a call of the weak network at least, so that a row does not depend on how many there are


@dataclass(frozen=True)
class Trajectories:
    """What guidance answered: (n, *shape) conditional predictions `clean` and guided ones `guided`, at `t` (n,), of
    `condition` (n,), in the order in which they were made."""

    clean: Tensor
    guided: Tensor
    t: Tensor
    condition: Tensor


class _Collecting(ClassifierFree):
    def __init__(self, model: Denoiser, scale: float) -> None:
        super().__init__(model, scale)
        self.kept: list[tuple[Tensor, ...]] = []

    def scales(self, x: Tensor, t: Tensor, clean: Tensor, free: Tensor) -> NDArray[np.float64]:
        self.kept.append((clean, free + self.scale * (clean - free), t, self.asked))
        return super().scales(x, t, clean, free)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.asked = condition[torch.from_numpy(self.guides(t.cpu().numpy()))]
        return super().__call__(x, t, condition)


def collect(model: Denoiser, scale: float, solver: Solver, condition: Sequence[int], seed: int = 0) -> Trajectories:
    """What classifier-free guidance says on the way to one sample of each condition.

    Raises UsageError without conditions, and at scale 1, where nothing is guided and so nothing kept.
    """
    if len(condition) == 0 or scale == 1.0:
        raise UsageError(
            f"collect(scale={scale!r}) of {len(condition)} conditions keeps nothing: a scale other than 1 and a class "
            "or more; collect(model, 2.0, solver, range(10))."
        )
    guided = _Collecting(model, scale)
    sample(guided, solver, len(condition), condition, seed)
    return Trajectories(*(torch.cat(parts) for parts in zip(*guided.kept, strict=True)))


@dataclass(frozen=True)
class WeakRecipe:
    """Everything that decides a weak network."""

    width: int = 64
    seed: int = 0
    updates: int = 3_000
    batch: int = 256
    rate: float = 2e-3


class WeakNet(nn.Module):
    """(n, *shape) conditional predictions at times (n,) of classes (n,) to guided ones; at first the same."""

    def __init__(self, shape: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        size = int(np.prod(shape))
        self.enter, self.label = nn.Linear(size + 3, width), nn.Embedding(classes, width)
        self.inner, self.leave = nn.Linear(width, width), nn.Linear(width, size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, clean: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        waves = torch.stack([level, (3 * level).sin(), (3 * level).cos()], -1)
        h = F.silu(self.enter(torch.cat([clean.flatten(1), waves], 1)) + self.label(condition))
        out: Tensor = self.leave(F.silu(self.inner(h)))
        return clean + out.reshape(clean.shape)

    def flops(self) -> float:
        return 2.0 * sum(m.weight.numel() for m in (self.enter, self.inner, self.leave))


def reflect(kept: Trajectories, model: Denoiser, recipe: WeakRecipe | None = None) -> WeakNet:
    """A weak network, trained by squared error to answer as guidance did on the trajectories."""
    recipe = recipe or WeakRecipe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        weak = WeakNet(model.shape, model.classes, recipe.width)
    draw, optimiser = torch.Generator().manual_seed(recipe.seed + 1), torch.optim.Adam(weak.parameters(), recipe.rate)
    clean, guided, level = kept.clean.float(), kept.guided.float(), _level(model, kept.t)
    for update in range(recipe.updates):
        optimiser.param_groups[0]["lr"] = recipe.rate * (1 - update / recipe.updates)
        rows = torch.randint(len(clean), (recipe.batch,), generator=draw)
        loss = F.mse_loss(weak(clean[rows], level[rows], kept.condition[rows]), guided[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return weak.eval().requires_grad_(False)


def _level(model: Denoiser, t: Tensor) -> Tensor:
    """How much of a point is noise, in [0, 1], on any schedule: the angle of (alpha, sigma)."""
    ratio = model.schedule.ratio(t.cpu().numpy())
    return torch.from_numpy(np.arctan(ratio) / (np.pi / 2)).float()


class CollectReflectRefine(ClassifierFree):
    """W + refinement (guided - W), where W is what the weak network makes of the conditional prediction.

    Preserves nothing, as all guidance. refinement 0 is the weak network alone, for one evaluation a row; 1 is
    classifier-free guidance at `scale` to the bit; above 1 it goes on past it, away from what the weak one can learn.

    weak: from `reflect`. interval: the noise levels sigma / alpha between which it refines, for two evaluations a row;
    outside the weak network answers alone. The weak network is no evaluation, but its FLOPs are charged. Every row
    needs a class. Raises UsageError for a refinement that is not finite.
    """

    def __init__(
        self,
        model: Denoiser,
        weak: WeakNet,
        scale: float,
        refinement: float = 1.5,
        interval: tuple[float, float] = (0.0, np.inf),
    ) -> None:
        if not np.isfinite(refinement):
            raise UsageError(f"refinement={refinement!r}: a number; 0.0 for the weak network alone, 1.5 to refine.")
        super().__init__(model, scale, interval)
        self.name, self.weak, self.refinement = f"{model.name}-refined", weak, float(refinement)

    def settings(self) -> str:
        net = weights_of(self.weak.state_dict())
        return f"refined({net}, refinement={self.refinement}) as {super().settings()}"

    def guides(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(super().guides(t) & (self.refinement != 0.0))

    def beside(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.model.beside(t) + self.weak.flops())

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        rows = torch.from_numpy(np.flatnonzero(self.guides(t.cpu().numpy())))
        free = torch.full_like(condition[rows], NULL)
        both = torch.cat([x, x[rows]]), torch.cat([t, t[rows]]), torch.cat([condition, free])
        said = self.model(*both)
        clean, free_clean = said[: len(x)], said[len(x) :]
        answer = self.reflected(clean, t, condition)
        if len(rows):
            # In float64 and from the strong answer, as classifier-free guidance does: 1 is then that to the bit.
            scale = spread(self.scales(x[rows], t[rows], clean[rows], free_clean), x)
            strong = free_clean + scale * (clean[rows] - free_clean)
            answer[rows] = (strong + (self.refinement - 1.0) * (strong - answer[rows])).to(x.dtype)
        return answer

    def reflected(self, clean: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """What the weak network makes of conditional predictions."""
        if bool((condition < 0).any()):
            raise UsageError(f"{self.name} needs a class in every row; sample(refined, solver, n=16, condition=3).")
        n = len(clean)
        fill = torch.arange(max(n, LEAST)) % n
        said: Tensor = self.weak(clean[fill].float(), _level(self.model, t)[fill], condition[fill])
        return said[:n].to(clean.dtype).clone()


def collect_reflect_refine(
    model: Denoiser,
    scale: float,
    solver: Solver,
    condition: Sequence[int],
    refinement: float = 1.5,
    seed: int = 0,
    recipe: WeakRecipe | None = None,
) -> CollectReflectRefine:
    """All three: collect guided samples of these conditions with `solver`, reflect them, and guide by the result."""
    weak = reflect(collect(model, scale, solver, condition, seed), model, recipe)
    return CollectReflectRefine(model, weak, scale, refinement)
