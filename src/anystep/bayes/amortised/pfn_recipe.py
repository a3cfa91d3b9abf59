"""What decides a prior-fitted network, and the loop that trains it on draws of its prior.

Source: Müller et al., "Transformers Can Do Bayesian Inference" (arXiv 2112.10510, ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anystep import kept
from anystep.averaged import Cost, averaged
from anystep.bayes.amortised.bars import Bars
from anystep.bayes.amortised.pfn_heads import Gaussian, Label
from anystep.bayes.amortised.pfn_net import PFNNet, PFNShape
from anystep.bayes.amortised.priors import GPPrior, Prior
from anystep.errors import UsageError

BORDER_SETS = 2_000  # of 50 points: what borders are the quantiles of


@dataclass(frozen=True)
class PFNRecipe:
    """Everything that decides a network: same recipe and same machine, same weights.

    prior: draws its datasets. context: the most points that it learns to be told. points: of a training dataset,
    context and queries together. split: how the size of a context is drawn: "weighted" by 1 / (points - size), so that
    sizes have about as many queries to learn from, or "uniform". head: "bars" or "gaussian", for priors over numbers.
    """

    prior: Prior = field(default_factory=GPPrior)
    shape: PFNShape = field(default_factory=PFNShape)
    context: int = 30
    points: int = 50
    head: Literal["bars", "gaussian"] = "bars"
    bars: int = 100
    split: Literal["weighted", "uniform"] = "weighted"
    seed: int = 0
    updates: int = 4_000
    batch: int = 32
    rate: float = 2e-3
    average: float = 0.995

    def __post_init__(self) -> None:
        if not 0 <= self.context < self.points:
            raise UsageError(
                f"PFNRecipe(context={self.context}, points={self.points}): some points must be left to ask about; "
                "PFNRecipe(context=30, points=50)."
            )
        for name, options in (("head", ("bars", "gaussian")), ("split", ("weighted", "uniform"))):
            if getattr(self, name) not in options:
                raise UsageError(f"PFNRecipe({name}={getattr(self, name)!r}): {name} is one of {', '.join(options)}.")

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        told = asdict(self)
        return told | {"prior": {"kind": type(self.prior).__name__, **told["prior"]}}


class PFN(nn.Module):
    """A network and its head: `forward` gives logits, in the prior's own units of x and y."""

    def __init__(self, net: PFNNet, head: Bars | Gaussian | Label, prior: Prior) -> None:
        super().__init__()
        self.net, self.head, self.prior = net, head, prior

    def forward(self, x: Tensor, y: Tensor, query: Tensor, count: Tensor | None = None) -> Tensor:
        """Logits (sets, queries, head's size) as of `PFNNet`, of features that are not yet centred."""
        x, query = ((part - self.prior.centre) / self.prior.spread for part in (x, query))
        logits: Tensor = self.net(x, y, query, count)
        return logits


def untrained(recipe: PFNRecipe, borders: Tensor | None = None) -> PFN:
    """The network before training, its bars' borders drawn where they are not given; global draws untouched."""
    prior = recipe.prior
    head: Bars | Gaussian | Label = Label() if prior.classes else Gaussian()
    if not prior.classes and recipe.head == "bars":
        draw = torch.Generator().manual_seed(recipe.seed + 2)
        head = Bars.of(prior.draw(BORDER_SETS, 50, draw)[1], recipe.bars) if borders is None else Bars(borders)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return PFN(PFNNet(prior.features, head.size, recipe.shape), head, prior)


def train(recipe: PFNRecipe, say: Callable[[str], None] | None = None) -> tuple[PFN, Cost]:
    """The averaged weights of a network that learned -log q(y | x, context) on draws of the prior, and what that took.

    Its expected loss is the divergence from the posterior predictive to q plus a constant, so the minimiser is that.
    """
    model, draw = untrained(recipe), torch.Generator().manual_seed(recipe.seed + 1)
    sizes = torch.arange(recipe.context + 1)
    odds = 1 / (recipe.points - sizes) if recipe.split == "weighted" else torch.ones(len(sizes))

    def loss() -> Tensor:
        n = int(torch.multinomial(odds, 1, generator=draw))
        x, y = recipe.prior.draw(recipe.batch, recipe.points, draw)
        return -model.head.log_prob(model(x[:, :n], y[:, :n], x[:, n:]), y[:, n:]).mean()

    return model, averaged(model, recipe, loss, 0.0, say)


def trained(recipe: PFNRecipe, say: Callable[[str], None] = print) -> PFN:
    """The recipe's network: trained the first time, then read from the cache folder."""

    def make(name: str, folder: Path) -> None:
        model, cost = train(recipe, say)
        card = {"recipe": recipe.told(), "cost": asdict(cost)}
        kept.save(model.state_dict(), card, name, folder, dtype=torch.float32)

    card = kept.kept("pfn", recipe.told(), make)
    return _read(recipe, card.stem, card.parent)


@cache
def _read(recipe: PFNRecipe, name: str, folder: Path) -> PFN:
    tensors, _ = kept.load(name, folder)
    model = untrained(recipe, tensors.get("head.borders"))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)
