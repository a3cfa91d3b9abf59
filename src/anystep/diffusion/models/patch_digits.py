"""A patch-autoregressive model of 8x8 digits: trained once by a recipe, then kept in the cache folder by its hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from anystep import kept
from anystep.averaged import Cost, averaged
from anystep.diffusion.models.digit_data import Images, digits_data
from anystep.diffusion.models.patch_net import PatchFlow, PatchNet, PatchShape, cut


@dataclass(frozen=True)
class PatchRecipe:
    """Everything that decides the model: same recipe and same machine, same weights.

    targets: patches of an image that one update learns. dropout: how often a row's class is hidden. average: how slowly
    the weights that are kept follow those that are trained.
    """

    shape: PatchShape = field(default_factory=PatchShape)
    seed: int = 0
    updates: int = 10_000
    batch: int = 192
    targets: int = 3
    rate: float = 2e-3
    dropout: float = 0.1
    average: float = 0.999
    decay: float = 0.05


def untrained(recipe: PatchRecipe) -> PatchNet:
    """The network before training; global draws untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return PatchNet(recipe.shape)


def train(
    recipe: PatchRecipe, data: Images | None = None, say: Callable[[str], None] | None = None
) -> tuple[PatchNet, Cost]:
    """The averaged weights of a network that learned to fill in patches, and what that took."""
    data = data or digits_data("train")
    net, draw = untrained(recipe), torch.Generator().manual_seed(recipe.seed + 1)
    patches = cut(data.images, recipe.shape.patch)
    return net, averaged(net, recipe, lambda: loss_of(net, recipe, patches, data.labels, draw), recipe.decay, say)


def loss_of(net: PatchNet, recipe: PatchRecipe, patches: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
    """The mean squared error of the velocity, on patches that are not known where 0 to all but one of them are."""
    n, k, total = recipe.batch, recipe.targets, recipe.shape.patches
    rows = torch.randint(len(patches), (n,), generator=draw)
    clean, label = patches[rows], labels[rows]
    label = torch.where(torch.rand(n, generator=draw) < recipe.dropout, -1, label)
    rank = torch.rand(n, total, generator=draw).argsort(1).argsort(1)
    there = torch.randint(total, (n,), generator=draw)
    told = net.body(clean, rank < there[:, None], label)
    # The next k patches in each row's order; rows with fewer left learn their last ones again.
    which = torch.minimum(there[:, None] + torch.arange(k), torch.tensor(total - 1))
    where = (rank[:, None, :] == which[:, :, None]).int().argmax(-1)
    real = clean.gather(1, where[:, :, None].expand(-1, -1, clean.shape[-1])).flatten(0, 1)
    heard = told.gather(1, where[:, :, None].expand(-1, -1, told.shape[-1])).flatten(0, 1)
    t, noise = torch.rand(n * k, generator=draw), torch.randn(real.shape, generator=draw)
    said = net.head((1 - t[:, None]) * real + t[:, None] * noise, t, heard)
    return ((said - (noise - real)) ** 2).mean()


def trained(recipe: PatchRecipe, say: Callable[[str], None] = print) -> PatchNet:
    """The recipe's network: trained the first time, a few minutes, then read from the cache folder."""

    def make(name: str, folder: Path) -> None:
        net, cost = train(recipe, say=say)
        kept.save(net.state_dict(), {"recipe": asdict(recipe), "cost": asdict(cost)}, name, folder)

    card = kept.kept("patch-digits", asdict(recipe), make)
    return _read(recipe, card.stem, card.parent)


def patch_digits(recipe: PatchRecipe | None = None, say: Callable[[str], None] = print) -> PatchFlow:
    """A trained model of 8x8 digits in sixteen patches, for `PatchProcess`; trained once, then kept.

    recipe: one of your own instead.
    """
    return PatchFlow(trained(recipe or PatchRecipe(), say))


@cache
def _read(recipe: PatchRecipe, name: str, folder: Path) -> PatchNet:
    tensors, _ = kept.load(name, folder)
    net = untrained(recipe)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)
