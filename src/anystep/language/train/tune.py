"""Tuning a small model on pairs of prompt and continuation, and keeping what was trained by the hash of its recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.kept import kept as kept_by_hash
from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, pad_rows
from anystep.language.train.checkpoint import WEIGHTS, Card, save
from anystep.language.train.optimise import Optimiser
from anystep.tasks.chains import Alphabet

Pair = tuple[str, str]  # a prompt, of which nothing is learned, and what should follow it


@dataclass(frozen=True)
class Tuning:
    """How long and how fast: `tokens` counts padded ones, `batch` pairs an update, the rates are the optimiser's peaks.

    emphasis: how much more than the others some characters count in the loss, such as verdicts among many other words.
    between: two characters, and how much more what stands behind the first, up to the second, counts.
    From scratch, rates of 3e-3 and 4e-3 serve (`Tuning.fresh()`), from a trained model a tenth of them.
    """

    tokens: int = 480_000
    batch: int = 64
    matrix_rate: float = 3e-4
    other_rate: float = 2e-4
    warm_steps: int = 10
    flat: float = 0.3
    seed: int = 0
    emphasis: Mapping[str, float] = field(default_factory=dict)
    between: tuple[str, str, float] | None = None

    @classmethod
    def fresh(cls, tokens: int, seed: int = 0) -> Tuning:
        return cls(tokens, matrix_rate=3e-3, other_rate=4e-3, warm_steps=50, flat=0.4, seed=seed)


def batches(pairs: Sequence[Pair], alphabet: Alphabet, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (tokens, targets), rows of similar length together, targets 0 where no loss is taken."""
    rng = Random(seed)
    while True:
        order = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]) + 12 * rng.random())
        starts = list(range(0, len(order), batch))
        rng.shuffle(starts)
        for at in starts:
            some = order[at : at + batch]
            tokens = pad_rows([alphabet.encode(p + c) for p, c in some])
            targets = torch.zeros_like(tokens)
            for i, (p, c) in enumerate(some):
                targets[i, len(p) - 1 : len(p) + len(c) - 1] = tokens[i, len(p) : len(p) + len(c)]
            yield tokens, targets


def tune(
    model: Llama, alphabet: Alphabet, pairs: Sequence[Pair], tuning: Tuning, say: Callable[[str], None] = print
) -> Cost:
    """Trains `model` in place to continue prompts as the pairs do, and says what it took.

    Raises UsageError for no pairs, an empty prompt, and pairs beyond the model's context.
    """
    if not pairs:
        raise UsageError("tune(model, alphabet, pairs=[]): nothing to learn from; give (prompt, text) pairs.")
    longest = max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    if sum(map(len, longest)) > model.config.context:
        raise UsageError(
            f"tune: {longest[0][:40]!r} and what follows are {sum(map(len, longest))} tokens, the model's context "
            f"{model.config.context}; make it of Config(..., context={sum(map(len, longest))})."
        )
    if not all(prompt for prompt, _ in pairs):
        raise UsageError("tune: a pair has an empty prompt; the first token has nothing to be told from.")
    began, began_cpu, tokens, updates = time.perf_counter(), time.process_time(), 0, 0
    optimiser = Optimiser(model, tuning.matrix_rate, tuning.other_rate, tuning.warm_steps, tuning.flat)
    weights = torch.tensor([tuning.emphasis.get(symbol, 1.0) for symbol in alphabet.symbols])
    for inputs, targets in batches(pairs, alphabet, tuning.batch, tuning.seed):
        picked = targets > 0
        each = F.cross_entropy(model.logits(model(inputs)[picked]), targets[picked], reduction="none")
        weight = (weights[targets] * _inside(targets, alphabet, tuning.between))[picked]
        loss = (each * weight).sum() / weight.sum()
        loss.backward()
        tokens, updates = tokens + inputs.numel(), updates + 1
        optimiser.step(tokens / tuning.tokens)
        if updates % 40 == 1:
            say(f"{time.perf_counter() - began:.0f} s {tokens:,} tokens loss {loss.item():.3f}")
        if tokens >= tuning.tokens:
            break
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Cost(tokens, updates * tuning.batch, updates, round(seconds, 1), round(cpu, 1))


def _inside(targets: Tensor, alphabet: Alphabet, between: tuple[str, str, float] | None) -> Tensor:
    """What each target counts for its place, (rows, time)."""
    if between is None:
        return torch.ones(targets.shape)
    first, last = alphabet.encode("".join(between[:2]))
    behind = (targets == first).cumsum(1) - (targets == last).cumsum(1) + (targets == last).long() > 0
    return torch.where(behind & (targets != first), between[2], 1.0)


def kept(
    name: str,
    recipe: Mapping[str, Any],
    make: Callable[[], tuple[nn.Module, Config, Cost]],
    start: str | None = None,
    kind: str = "policy",
    alphabet: Alphabet | None = None,
) -> Path:
    """The card of what `make` trains: trained once, then kept in the cache folder by the hash of its recipe.

    start: the shipped model it begins with; its weights are in the hash, so that a new one never meets an old variant.
    A policy's card is what `language.load` takes; `checkpoint.load(path.stem, path.parent)` reads any.
    """

    def save_there(name: str, folder: Path) -> None:
        module, config, cost = make()
        save(module, Card(name, kind, config, alphabet or Alphabet(), dict(recipe), vars(cost).copy()), folder)

    return kept_by_hash(name, [dict(recipe), start and _sha256(start)], save_there)


def _sha256(name: str) -> str:
    return str(json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))["sha256"])
