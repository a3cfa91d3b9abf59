"""Odds-ratio preference optimisation: one loss that writes the chosen chain and shuns the rejected one.

Source: Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model" (2024).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Llama
from anystep.language.train.chainlm import Cost, pad_rows
from anystep.language.train.optimise import Optimiser
from anystep.tasks.chains import Alphabet


class Preference(NamedTuple):
    """Of two chains for a prompt, the one to write and the one not to."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Orpo:
    """How long and how fast: `tokens` counts padded ones of both sides, `batch` pairs an update; `weight` is the odds
    ratio's, beside the likelihood of the chosen."""

    tokens: int = 40_000
    batch: int = 16
    weight: float = 0.5
    matrix_rate: float = 3e-4
    other_rate: float = 2e-4
    warm_steps: int = 5
    seed: int = 0


def preferences(
    prompt: str, chains: Sequence[str], right: Sequence[bool], steps: Sequence[Sequence[bool | None]] | None = None
) -> Iterator[Preference]:
    """For each chain with a wrong end, one with a right end that is preferred to it.

    right: whether each ends on the right answer. steps: labels of their steps; then the chosen is the one whose mean
    label is highest, and there is no pair unless that is above the rejected one's. Without them all right ends are
    alike, and are taken in turn.
    """
    good = [i for i, r in enumerate(right) if r]
    means = None if steps is None else [_mean(row) for row in steps]
    turn = 0
    for i, r in enumerate(right):
        if r or not good:
            continue
        if means is None:
            yield Preference(prompt, chains[good[turn % len(good)]], chains[i])
            turn += 1
            continue
        top = max(means[j] for j in good)
        best = [j for j in good if means[j] == top]
        if top > means[i]:
            yield Preference(prompt, chains[best[turn % len(best)]], chains[i])
            turn += 1


def _mean(labels: Sequence[bool | None]) -> float:
    known = [float(y) for y in labels if y is not None]
    return sum(known) / len(known) if known else 0.0


def mean_logp(model: Llama, alphabet: Alphabet, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, int]:
    """The mean log-probability of each continuation's tokens (pairs,), and how many padded tokens were read."""
    tokens = pad_rows([alphabet.encode(prompt + chain) for prompt, chain in pairs])
    logs = model.logits(model(tokens[:, :-1])).log_softmax(-1)
    said = logs.gather(-1, tokens[:, 1:, None])[..., 0]
    place = torch.arange(said.shape[1])
    begin = torch.tensor([[len(prompt) - 1] for prompt, _ in pairs])
    end = torch.tensor([[len(prompt) + len(chain) - 1] for prompt, chain in pairs])
    inside = (place >= begin) & (place < end)
    return (said * inside).sum(1) / inside.sum(1), tokens.numel()


def loss_of(chosen: Tensor, rejected: Tensor, weight: float) -> Tensor:
    """Minus the mean log-likelihood of the chosen, and `weight` times minus the log-sigmoid of the log odds ratio."""
    chosen, rejected = chosen.clamp(max=-1e-6), rejected.clamp(max=-1e-6)  # certain chains have no finite odds
    odds = (chosen - torch.log1p(-chosen.exp())) - (rejected - torch.log1p(-rejected.exp()))
    return -chosen.mean() - weight * F.logsigmoid(odds).mean()


def orpo(
    model: Llama, alphabet: Alphabet, pairs: Sequence[Preference], recipe: Orpo, say: Callable[[str], None] = print
) -> Cost:
    """Trains `model` in place on preferences, passed over in a new order each time, and says what it took."""
    if not pairs:
        raise UsageError("orpo(model, alphabet, pairs=[]): no preference to learn from; give Preference(...) triples.")
    began, began_cpu, tokens, updates = time.perf_counter(), time.process_time(), 0, 0
    rng, waiting = Random(recipe.seed), list[Preference]()
    optimiser = Optimiser(model, recipe.matrix_rate, recipe.other_rate, recipe.warm_steps)
    while tokens < recipe.tokens:
        while len(waiting) < recipe.batch:
            waiting.extend(rng.sample(pairs, len(pairs)))
        some = [waiting.pop() for _ in range(recipe.batch)]
        sides = [(p.prompt, p.chosen) for p in some] + [(p.prompt, p.rejected) for p in some]
        logp, read = mean_logp(model, alphabet, sides)
        loss = loss_of(logp[: len(some)], logp[len(some) :], recipe.weight)
        loss.backward()
        tokens, updates = tokens + read, updates + 1
        optimiser.step(tokens / recipe.tokens)
        if updates % 20 == 1:
            say(f"orpo: {tokens:,} tokens loss {loss.item():.3f}")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Cost(tokens, updates * recipe.batch, updates, round(seconds, 1), round(cpu, 1))
