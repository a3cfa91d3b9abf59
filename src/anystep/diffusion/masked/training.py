"""Teaching a transformer to see behind masks, or to read from left to right, from whole sequences of tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep import kept
from anystep.diffusion.denoiser import NULL
from anystep.diffusion.masked.predictor import NetworkPredictor
from anystep.diffusion.masked.transformer import Shape, TokenTransformer
from anystep.errors import UsageError


@dataclass(frozen=True)
class MaskedRecipe:
    """Everything that decides a model beside its data: same recipe and same machine, same weights.

    share: of the sites that are hidden from an update's rows, uniform in (0, 1] or MaskGIT's cos(pi/2 u), which hides
    many. corrupt: how often a row's revealed tokens are drawn at random instead, each with probability one half, so
    that what was sampled wrong can be lived with. dropout: how often a row's class is hidden. rate: Muon's peak, on
    matrices; AdamW's on the rest is the same. A causal shape learns every next token, and nothing is hidden.
    """

    shape: Shape
    updates: int = 2_000
    batch: int = 64
    rate: float = 3e-3
    share: Literal["uniform", "cosine"] = "cosine"
    corrupt: float = 0.0
    dropout: float = 0.1
    average: float = 0.995
    seed: int = 0


@dataclass(frozen=True)
class Cost:
    """What training took: updates, tokens shown, seconds on the clock and of processor."""

    updates: int
    tokens: int
    seconds: float
    cpu_seconds: float


def train(
    recipe: MaskedRecipe, tokens: Tensor, labels: Tensor | None = None, say: Callable[[str], None] | None = None
) -> tuple[TokenTransformer, Cost]:
    """The averaged weights of a transformer trained by cross-entropy on hidden sites, and what that took.

    tokens: (rows, length) int64. labels: (rows,) classes, none by default. Raises UsageError for tokens that are not of
    the recipe's shape.
    """
    shape = recipe.shape
    if tokens.shape[1:] != (shape.length,) or int(tokens.max()) >= shape.symbols:
        raise UsageError(f"train: tokens {tuple(tokens.shape)} up to {int(tokens.max())} do not fit {shape}.")
    labels = torch.full((len(tokens),), NULL) if labels is None else labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = TokenTransformer(shape)
    held = {k: v.clone() for k, v in module.state_dict().items()}
    parts, drawn = _optimisers(module, recipe.rate), torch.Generator().manual_seed(recipe.seed + 1)
    began, began_cpu = time.perf_counter(), time.process_time()
    for update in range(recipe.updates):
        loss = loss_of(module, recipe, tokens, labels, drawn)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for part in parts:
            for group in part.param_groups:
                group["lr"] = recipe.rate * min(1.0, (update + 1) / 50, 0.02 + 1.5 * (1 - update / recipe.updates))
            part.step()
            part.zero_grad(set_to_none=True)
        keep = min(recipe.average, (1 + update) / (10 + update))
        with torch.no_grad():
            for name, value in module.state_dict().items():
                held[name].lerp_(value, 1 - keep)
        if say and update % 100 == 0:
            say(f"{time.perf_counter() - began:.0f} s, update {update}, loss {loss.item():.4f}")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    module.load_state_dict(held)
    return module.eval(), Cost(recipe.updates, recipe.updates * recipe.batch * shape.length, seconds, cpu)


def loss_of(module: nn.Module, recipe: MaskedRecipe, tokens: Tensor, labels: Tensor, drawn: torch.Generator) -> Tensor:
    """The mean cross-entropy of one batch, drawn by `drawn`, on hidden sites; on all of a causal shape."""
    n, shape = recipe.batch, recipe.shape
    rows = torch.randint(len(tokens), (n,), generator=drawn)
    target, label = tokens[rows], labels[rows]
    label = torch.where(torch.rand(n, generator=drawn) < recipe.dropout, NULL, label)
    if shape.causal:
        return F.cross_entropy(module(target, label).flatten(0, 1), target.flatten())
    u = torch.rand(n, 1, generator=drawn)
    share = 1 - u if recipe.share == "uniform" else torch.cos(0.5 * math.pi * u)
    count = (share * shape.length).ceil().clamp(1, shape.length)
    hidden = torch.rand(n, shape.length, generator=drawn).argsort(-1).argsort(-1) < count
    shown = target
    if recipe.corrupt:
        wrong = torch.rand(n, 1, generator=drawn) < recipe.corrupt
        wrong = wrong & (torch.rand(n, shape.length, generator=drawn) < 0.5)
        shown = torch.where(wrong, torch.randint(shape.symbols, target.shape, generator=drawn), target)
    logits = module(torch.where(hidden, shape.symbols, shown), label)
    return F.cross_entropy(logits[hidden], target[hidden])


def _optimisers(module: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon on the matrices between, AdamW on the rest. Source: Jordan et al., "Muon" (2024), torch's own version."""
    named = dict(module.named_parameters())
    matrices = [p for n, p in named.items() if p.ndim == 2 and "embed" not in n and "head" not in n]
    others = [p for n, p in named.items() if not any(p is m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=rate, momentum=0.95, ns_steps=4, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, rate, betas=(0.9, 0.97), weight_decay=0.0)]


def save(module: TokenTransformer, recipe: MaskedRecipe, cost: Cost, name: str, folder: Path) -> None:
    """Tensors and their card."""
    kept.save(module.state_dict(), {"name": name, "recipe": asdict(recipe), "cost": asdict(cost)}, name, folder)


def load(name: str, folder: Path, alphabet: str = "") -> NetworkPredictor:
    """What `save` wrote, as a predictor. Raises ModelError where it is missing or damaged."""
    tensors, record = kept.load(name, folder)
    shape = Shape(**record["recipe"]["shape"])
    module = TokenTransformer(shape)
    module.load_state_dict(tensors)
    return NetworkPredictor(module, shape.length, shape.symbols, shape.classes, name, alphabet)


def trained(
    name: str,
    recipe: MaskedRecipe,
    data: Callable[[], tuple[Tensor, Tensor | None]],
    told: Any,
    say: Callable[[str], None] | None = None,
) -> NetworkPredictor:
    """The predictor of a recipe, trained the first time and kept in the cache folder; told: what decides the data."""

    def make(name: str, folder: Path) -> None:
        tokens, labels = data()
        module, cost = train(recipe, tokens, labels, say)
        save(module, recipe, cost, name, folder)

    path = kept.kept(name, [asdict(recipe), told], make)
    return load(path.stem, path.parent)
