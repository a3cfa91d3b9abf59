"""Small networks on windows of a series, alone or beside what was seen of them, and the recipe that trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep import kept
from anystep.averaged import Cost, averaged
from anystep.diffusion.denoiser import Network
from anystep.diffusion.models.digit_net import FASTEST, Block, Shape
from anystep.diffusion.schedules import Flow
from anystep.diffusion.series.seasonal import Seasonal


@dataclass(frozen=True)
class SeriesRecipe:
    """Everything that decides a model. shown: places of a window that it is shown beside the noisy window, 0 for an
    unconditional one. windows: drawn from `data` to train on. width, blocks: of the network."""

    data: Seasonal = field(default_factory=Seasonal)
    shown: int = 0
    windows: int = 4_000
    width: int = 96
    blocks: int = 2
    seed: int = 0
    updates: int = 4_000
    batch: int = 128
    rate: float = 2e-3
    average: float = 0.999


class SeriesNet(nn.Module):
    """(n, length) windows at times (n,) to their velocity, `seen` (n, shown) of each told beside."""

    waves: Tensor

    def __init__(self, length: int, shown: int, width: int, blocks: int) -> None:
        super().__init__()
        shape = Shape(width=width, hidden=2 * width, blocks=blocks)
        self.register_buffer("waves", FASTEST * 2 ** (torch.arange(-8, 1) / 2), persistent=False)
        self.time = nn.Sequential(nn.Linear(19, shape.told), nn.SiLU(), nn.Linear(shape.told, shape.told), nn.SiLU())
        self.enter, self.leave = nn.Linear(length + shown, width), nn.Linear(width, length)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, seen: Tensor | None = None) -> Tensor:
        angles = t[:, None] * self.waves.to(t.dtype)
        told = self.time(torch.cat([t[:, None], angles.sin(), angles.cos()], -1))
        h = self.enter(x if seen is None else torch.cat([x, seen], -1))
        for block in self.blocks:
            h = block(h, told)
        velocity: Tensor = self.leave(self.norm(h))
        return velocity


def untrained(recipe: SeriesRecipe) -> SeriesNet:
    """The network before training; global draws untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return SeriesNet(recipe.data.length, recipe.shown, recipe.width, recipe.blocks)


def train(recipe: SeriesRecipe, say: Callable[[str], None] | None = None) -> tuple[SeriesNet, Cost]:
    """The averaged weights of a network that learned the velocity of windows, and what that took."""
    net, draw = untrained(recipe), torch.Generator().manual_seed(recipe.seed + 1)
    windows = torch.from_numpy(recipe.data.draw(recipe.windows, recipe.seed)).float()

    def loss() -> Tensor:
        clean = windows[torch.randint(len(windows), (recipe.batch,), generator=draw)]
        t, noise = torch.rand(recipe.batch, generator=draw), torch.randn(clean.shape, generator=draw)
        noisy = (1 - t[:, None]) * clean + t[:, None] * noise
        said = net(noisy, t, clean[:, : recipe.shown] if recipe.shown else None)
        # What a conditional model is shown it need not predict.
        return F.mse_loss(said[:, recipe.shown :], (noise - clean)[:, recipe.shown :])

    return net, averaged(net, recipe, loss, 0.01, say, every=1_000)


def trained(recipe: SeriesRecipe, say: Callable[[str], None] = print) -> SeriesNet:
    """The recipe's network: trained the first time, then read from the cache folder."""

    def make(name: str, folder: Path) -> None:
        net, cost = train(recipe, say)
        kept.save(net.state_dict(), {"recipe": asdict(recipe), "cost": asdict(cost)}, name, folder)

    card = kept.kept("series", asdict(recipe), make)
    return _read(recipe, card.stem, card.parent)


@cache
def _read(recipe: SeriesRecipe, name: str, folder: Path) -> SeriesNet:
    tensors, _ = kept.load(name, folder)
    net = untrained(recipe)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


def series(recipe: SeriesRecipe | None = None, say: Callable[[str], None] = print) -> Network:
    """An unconditional denoiser of seasonal windows, for `TSDiff`: trained once, under a minute, then kept."""
    recipe = recipe or SeriesRecipe()
    return Network(trained(recipe, say), Flow(), (recipe.data.length,), name="series")
