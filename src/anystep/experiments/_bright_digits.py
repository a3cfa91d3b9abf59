"""Digits on grounds of every brightness, and models of them whose schedule leaves much signal at its last time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep import kept
from anystep.diffusion import VP, Network
from anystep.diffusion.models.digit_data import Images, digits_data
from anystep.diffusion.models.digit_flow import DigitRecipe, loss_of, train, untrained
from anystep.diffusion.models.digit_net import Shape

BINS = 8
RECIPE = DigitRecipe(
    "noise", VP(0.1, 3.0), Shape(width=96, hidden=192, blocks=2), updates=5_000, batch=128, dropout=1.0
)
TUNED = 1_000  # updates of the second model, from the first one's weights


@dataclass(frozen=True)
class Bright:
    """Digits at half their contrast, each moved by a brightness of its own. bins: (n,) of their mean brightness."""

    digits: Images
    bins: Tensor


def brightness(images: Tensor) -> Tensor:
    return images.flatten(1).mean(1)


def bright(split: str, copies: int, seed: int, only: int = 10) -> Bright:
    """`copies` of every digit below `only`, each at another brightness; the bins are cut where the training digits'
    brightness has its quantiles."""
    plain = digits_data(split)
    kept_rows = plain.labels < only
    images = (0.5 * plain.images[kept_rows]).repeat(copies, 1, 1)
    shift = 2 * torch.rand(len(images), 1, 1, generator=torch.Generator().manual_seed(seed)) - 1
    moved = images + shift
    return Bright(Images(moved, plain.labels[kept_rows].repeat(copies)), torch.bucketize(brightness(moved), edges()))


def edges() -> Tensor:
    plain = 0.5 * brightness(digits_data("train").images).repeat(8)
    shift = 2 * torch.rand(len(plain), generator=torch.Generator().manual_seed(0)) - 1
    return torch.quantile(plain + shift, torch.linspace(0, 1, BINS + 1)[1:-1])


def model(recipe: DigitRecipe = RECIPE, say: Callable[[str], None] | None = print) -> Network:
    """The base: it predicts the noise and knows no classes."""
    return _kept("bright-digits", recipe, {}, lambda: train(recipe, bright("train", 8, 1).digits, say)[0])


def tuned(recipe: DigitRecipe = RECIPE, updates: int = TUNED) -> Network:
    """A second one, tuned from the first to the digits 0 to 4 alone."""

    def make() -> torch.nn.Module:
        module = copy.deepcopy(model(recipe).module).requires_grad_(True).train()
        data, draw = bright("train", 8, 2, only=5).digits, torch.Generator().manual_seed(recipe.seed + 7)
        optimiser = torch.optim.AdamW(module.parameters(), 5e-4)
        for update in range(updates):
            optimiser.param_groups[0]["lr"] = 5e-4 * (1 - update / updates)
            loss = loss_of(module, recipe, data, draw)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return module.eval()

    return _kept("bright-digits-tuned", recipe, {"only": 5, "updates": updates}, make)


def _kept(name: str, recipe: DigitRecipe, told: dict[str, Any], make: Callable[[], torch.nn.Module]) -> Network:
    def write(stem: str, folder: Path) -> None:
        kept.save(make().state_dict(), {"recipe": recipe.told()}, stem, folder)

    card = kept.kept(name, {**recipe.told(), **told, "data": "half contrast, brightness in -1 to 1"}, write)
    module = untrained(recipe)
    module.load_state_dict(kept.load(card.stem, card.parent)[0])
    size = recipe.shape.size
    return Unlabelled(module, recipe.schedule, (size, size), recipe.predicts, 0, name)


class Unlabelled(Network):
    """A digit network whose classes were never shown: asked without one."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        n = len(x)
        fill = torch.arange(max(n, self.least), device=x.device) % n
        said: Tensor = self.module(x[fill], t.to(x.dtype)[fill], torch.full_like(condition, -1)[fill])
        return said[:n]


def distance(one: Tensor, other: Tensor) -> float:
    """Kolmogorov and Smirnov's distance of two samples' mean brightness."""
    a, b = (np.sort(brightness(x).numpy()) for x in (one, other))
    at = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max())
