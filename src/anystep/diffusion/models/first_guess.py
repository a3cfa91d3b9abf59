"""What is expected of a condition alone: the compact network that one more step puts before a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.diffusion.denoiser import Network
from anystep.diffusion.schedules import Flow


@dataclass(frozen=True)
class GuessRecipe:
    """Everything that decides a first guess."""

    width: int = 64
    seed: int = 0
    updates: int = 1_500
    batch: int = 256
    rate: float = 2e-3


class FirstGuess(nn.Module):
    """Pure noise (n, *shape) of classes (n,), -1 for none, to the clean thing; the time is not looked at."""

    def __init__(self, shape: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        size = int(torch.tensor(list(shape)).prod())
        self.classes = classes
        self.enter, self.leave = nn.Linear(size, width), nn.Linear(width, size)
        self.label = nn.Embedding(classes + 1, width)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        told = self.enter(x.flatten(1)) + self.label(condition % (self.classes + 1))
        out: Tensor = self.leave(F.silu(told))
        return out.reshape(x.shape)


def first_guess(clean: Tensor, condition: Tensor, classes: int, recipe: GuessRecipe | None = None) -> Network:
    """A trained one, for `OneMoreStep`: it predicts `clean` from noise that says nothing, and from the condition.

    clean: (n, *shape) float32. condition: (n,) int64, from 0. A tenth of the rows is shown without its condition. The
    loss is that of a velocity at pure noise, which is minus the clean thing.
    """
    recipe = recipe or GuessRecipe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = FirstGuess(clean.shape[1:], classes, recipe.width)
    draw = torch.Generator().manual_seed(recipe.seed + 1)
    optimiser = torch.optim.Adam(module.parameters(), recipe.rate)
    for update in range(recipe.updates):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * (1 - update / recipe.updates)
        rows = torch.randint(len(clean), (recipe.batch,), generator=draw)
        told = torch.where(torch.rand(recipe.batch, generator=draw) < 0.1, -1, condition[rows])
        noise = torch.randn(clean[rows].shape, generator=draw)
        loss = F.mse_loss(module(noise, torch.ones(recipe.batch), told), clean[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return Network(module, Flow(), tuple(clean.shape[1:]), "clean", classes, "first-guess")
