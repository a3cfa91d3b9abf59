"""DigitFlow: class-conditional models of 8x8 handwritten digits, shipped trained, and the recipe that trains them.

`python -m anystep.diffusion.models.digit_flow --out FOLDER` trains the shipped ones again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep import kept
from anystep.averaged import Cost, averaged
from anystep.diffusion.denoiser import Network, Predicts, spread
from anystep.diffusion.models.conv_net import ConvShape
from anystep.diffusion.models.digit_data import Images, digits_data
from anystep.diffusion.models.digit_net import Shape
from anystep.diffusion.schedules import VE, VP, Flow, Schedule
from anystep.errors import UsageError

WEIGHTS = Path(__file__).parent / "data"
SHADES = " ░▒▓█"


@dataclass(frozen=True)
class DigitRecipe:
    """Everything that decides a model: same recipe and same machine, same weights.

    predicts, schedule: what it is trained for. dropout: how often a row's class is hidden, so that the model also
    knows digits of any class. average: how slowly the weights that are kept follow those that are trained.
    """

    predicts: Predicts = "velocity"
    schedule: Schedule = field(default_factory=Flow)
    shape: Shape | ConvShape = field(default_factory=Shape)
    seed: int = 0
    updates: int = 12_000
    batch: int = 256
    rate: float = 2e-3
    dropout: float = 0.1
    average: float = 0.999
    decay: float = 0.01

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        schedule = {f.name: getattr(self.schedule, f.name) for f in fields(self.schedule)}  # type: ignore[arg-type]
        return asdict(self) | {"schedule": {"kind": type(self.schedule).__name__, **schedule}}

    @classmethod
    def read(cls, told: dict[str, Any]) -> DigitRecipe:
        """What `told` wrote."""
        schedule = dict(told["schedule"])
        made = {"Flow": Flow, "VP": VP, "VE": VE}[schedule.pop("kind")](**schedule)
        kind = ConvShape if "channels" in told["shape"] else Shape
        shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told["shape"].items()}
        return cls(**told | {"schedule": made, "shape": kind(**shape)})


VARIANTS = {
    "velocity": DigitRecipe(),
    "epsilon": DigitRecipe("noise", VP(0.1, 10.6)),
    "clean": DigitRecipe("clean"),
}
SHIPPED = ("velocity", "epsilon")


class DigitFlow(Network):
    """A network on small images: finished rows are shown as block art, and vote by which pixels are dark."""

    def __init__(self, module: nn.Module, recipe: DigitRecipe, name: str) -> None:
        size = recipe.shape.size
        super().__init__(module, recipe.schedule, (size, size), recipe.predicts, recipe.shape.classes, name)
        self._flops = work(module, size)

    def flops(self) -> float:
        return self._flops

    def answers(self, x: Tensor) -> tuple[Hashable, ...]:
        """A fingerprint: the image, rounded to ink or none. What digit it is, a classifier says."""
        return tuple(bytes(np.packbits(row)).hex() for row in (x.detach().flatten(1) > 0).cpu().numpy())

    def texts(self, x: Tensor) -> tuple[str, ...]:
        """Block art, a line a row of pixels, two characters wide."""
        shade = ((x.detach().clamp(-1, 1) + 1) / 2 * (len(SHADES) - 1)).round().long().tolist()
        return tuple("\n".join("".join(2 * SHADES[v] for v in line) for line in image) for image in shade)


@torch.no_grad()
def work(module: nn.Module, size: int) -> float:
    """Floating-point operations of one row: two for each product of its linear layers and convolutions."""
    found = []

    def count(layer: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        found.append(2.0 * weight.numel() * (out[0].numel() / len(weight)))

    layers = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    module(torch.zeros(1, size, size), torch.ones(1), torch.zeros(1, dtype=torch.long))
    for hook in hooks:
        hook.remove()
    return sum(found)


def untrained(recipe: DigitRecipe) -> nn.Module:
    """The network before training; global draws untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return recipe.shape.network()


def train(
    recipe: DigitRecipe, data: Images | None = None, say: Callable[[str], None] | None = None
) -> tuple[nn.Module, Cost]:
    """The averaged weights of a network that learned to see behind noise, and what that took.

    Each update shows `batch` images at uniform times; the loss is the squared error of the velocity, which for a
    prediction of the clean thing is its own over t^2 (at most 100), and that of the noise for one of the noise.
    """
    data = data or digits_data("train")
    module, draw = untrained(recipe), torch.Generator().manual_seed(recipe.seed + 1)
    return module, averaged(module, recipe, lambda: loss_of(module, recipe, data, draw), recipe.decay, say, every=200)


def loss_of(module: nn.Module, recipe: DigitRecipe, data: Images, draw: torch.Generator) -> Tensor:
    """The mean loss of one batch, drawn by `draw`."""
    n = recipe.batch
    rows = torch.randint(len(data), (n,), generator=draw)
    clean, label = data.images[rows], data.labels[rows]
    label = torch.where(torch.rand(n, generator=draw) < recipe.dropout, -1, label)
    t = recipe.schedule.last * torch.rand(n, generator=draw).clamp_min(1e-3)
    noise = torch.randn(clean.shape, generator=draw)
    alpha, sigma = (spread(f(t.double()), clean).float() for f in (recipe.schedule.alpha, recipe.schedule.sigma))
    said = module(alpha * clean + sigma * noise, t, label)
    if recipe.predicts == "noise":
        return F.mse_loss(said, noise)
    if recipe.predicts == "velocity":
        alpha_rate, sigma_rate = (spread(rate, clean).float() for rate in recipe.schedule.rates(t.double()))
        return F.mse_loss(said, alpha_rate * clean + sigma_rate * noise)
    return ((said - clean) ** 2 / sigma.clamp_min(0.1) ** 2).mean()


def digits(
    variant: str = "velocity", recipe: DigitRecipe | None = None, say: Callable[[str], None] = print
) -> DigitFlow:
    """A trained model of 8x8 digits: shipped for "velocity" and "epsilon", else trained once and kept in the cache.

    variant: "velocity" on the flow's straight path; "epsilon", which predicts the noise on a variance-preserving path
    that leaves some signal at its end (alpha is 0.069 there); "clean" on the flow's. recipe: one of your own instead.
    Raises UsageError for another variant.
    """
    if recipe is None:
        if variant not in VARIANTS:
            raise UsageError(f"digits({variant!r}): the variants are {', '.join(VARIANTS)}; digits('velocity').")
        if variant in SHIPPED:
            return _read(f"digits-{variant}", WEIGHTS)
        recipe = VARIANTS[variant]
    return trained(f"digits-{recipe.predicts}", recipe, lambda: digits_data("train"), say)


def trained(name: str, recipe: DigitRecipe, data: Callable[[], Images], say: Callable[[str], None]) -> DigitFlow:
    """The model of a recipe, trained once on `data()`, which `name` tells from others, and kept in the cache."""

    def make(name: str, folder: Path) -> None:
        save(recipe, data(), name, folder, say)

    card = kept.kept(name, recipe.told(), make)
    return _read(card.stem, card.parent)


def save(recipe: DigitRecipe, data: Images, name: str, folder: Path, say: Callable[[str], None] | None = None) -> None:
    """Train one and write it."""
    module, cost = train(recipe, data, say)
    kept.save(module.state_dict(), {"recipe": recipe.told(), "cost": asdict(cost)}, name, folder)


@cache
def _read(name: str, folder: Path) -> DigitFlow:
    tensors, card = kept.load(name, folder)
    recipe = DigitRecipe.read(card["recipe"])
    module = untrained(recipe)
    module.load_state_dict(tensors)
    return DigitFlow(module, recipe, name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the shipped models of digits and save them.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    folder = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    for variant in SHIPPED:
        save(VARIANTS[variant], digits_data("train"), f"digits-{variant}", folder, print)


if __name__ == "__main__":
    main()
