"""ChainLM: a policy of one to three million parameters that writes chains, and the recipe that trains it.

The policy is trained on taught chains alone: in families with one right continuation it learns to compute, in those
with choices (countdown, paths) it learns to play plausible moves, some of which are doomed. `python -m
anystep.language.train.chainlm --size 2m --out weights` trains it again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Config, Llama
from anystep.language.train.checkpoint import Card, save
from anystep.language.train.checkpoint import load as load_checkpoint
from anystep.language.train.optimise import Optimiser
from anystep.language.train.sampler import sample
from anystep.tasks.chains import FAMILIES, Alphabet, Problem, problems

SHAPES = {
    "300k": (96, 3, 3, 256),
    "1m": (128, 5, 4, 384),
    "2m": (192, 5, 6, 512),
    "3m": (224, 5, 7, 576),
}  # dim, layers, heads, hidden
CONTEXT = 160


def shape(size: str) -> Config:
    """The Llama shape of a size, heads of 32."""
    if size not in SHAPES:
        raise UsageError(f"Recipe(size='2m'): sizes are {', '.join(SHAPES)}, got {size!r}")
    dim, layers, heads, hidden = SHAPES[size]
    return Config(len(Alphabet()), dim, layers, heads, heads, hidden, 32, context=CONTEXT)


def small(dim: int, layers: int, context: int) -> Config:
    """The shape of a model for one small task: heads of 32, two hidden units a dimension."""
    heads = dim // 32
    return Config(len(Alphabet()), dim, layers, heads, heads, 2 * dim, 32, context=context)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a policy: same recipe and same machine, same weights.

    `tokens` counts padded training tokens, `mix` and `levels` are weights of families and levels in training,
    `batch` is problems an update, in `micro` passes.
    """

    size: str = "2m"
    seed: int = 0
    tokens: int = 5_000_000
    mix: dict[str, float] = field(default_factory=lambda: {"C": 1.4, "P": 1.5, "A": 0.9, "L": 0.5})
    levels: dict[int, float] = field(default_factory=lambda: {1: 0.4, 2: 0.4, 3: 0.2})
    batch: int = 96
    micro: int = 2
    matrix_rate: float = 3e-3
    other_rate: float = 4e-3
    compile: bool = True


@dataclass(frozen=True)
class Cost:
    """What training took: padded tokens through the model, problems, updates, seconds on the clock and of processor."""

    tokens: int
    problems: int
    updates: int
    seconds: float
    cpu_seconds: float


def pad_rows(rows: list[list[int]], multiple: int = 8) -> Tensor:
    """Right-padded tokens (rows, width); a width that repeats spares compiled models a new shape."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    return torch.tensor([r + [0] * (width - len(r)) for r in rows])


def batches(recipe: Recipe, alphabet: Alphabet) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Endless updates of fresh problems: (tokens, targets) a micro-batch, targets 0 where no loss is taken."""
    stream = problems("train", Random(recipe.seed), recipe.mix, recipe.levels)
    while True:
        some: list[Problem] = sorted((next(stream) for _ in range(recipe.batch)), key=lambda p: len(p.prompt + p.chain))
        update, each = [], recipe.batch // recipe.micro
        for at in range(0, recipe.batch, each):
            rows = [alphabet.encode(p.prompt + p.chain) for p in some[at : at + each]]
            tokens = pad_rows(rows)
            targets = torch.zeros_like(tokens)
            for i, (row, p) in enumerate(zip(rows, some[at : at + each], strict=True)):
                targets[i, len(p.prompt) - 1 : len(row) - 1] = tokens[i, len(p.prompt) : len(row)]
            update.append((tokens, targets))
        yield update


def untrained(config: Config, seed: int) -> Llama:
    """A model to train from scratch: normal weights, smaller where a block writes out; global draws untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Llama(config)
        for name, p in model.named_parameters():
            if p.ndim == 2:
                torch.nn.init.normal_(p, std=0.02 if "o_proj" not in name and "down" not in name else 0.006)
    return model


def train(recipe: Recipe, watch: Callable[[Llama, int, float], None] | None = None) -> tuple[Llama, Cost]:
    """A trained policy and what it cost. `watch(model, tokens, loss)` is called after each update."""
    alphabet, model = Alphabet(), untrained(shape(recipe.size), recipe.seed)
    run = torch.compile(model, dynamic=True) if recipe.compile else model
    optimiser = Optimiser(model, recipe.matrix_rate, recipe.other_rate)
    began, began_cpu, tokens, updates = time.perf_counter(), time.process_time(), 0, 0
    for update in batches(recipe, alphabet):
        counted = sum(int((t > 0).sum()) for _, t in update)
        total = 0.0
        for inputs, targets in update:
            picked = targets > 0
            logits = model.logits(run(inputs)[picked])
            loss = F.cross_entropy(logits, targets[picked], reduction="sum") / counted
            loss.backward()
            total += loss.item()
            tokens += inputs.numel()
        optimiser.step(tokens / recipe.tokens)
        updates += 1
        if watch:
            watch(model, tokens, total)
        if tokens >= recipe.tokens:
            break
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return model, Cost(tokens, updates * recipe.batch, updates, round(seconds, 1), round(cpu, 1))


def policy(name: str = "chainlm-2m", folder: Path | None = None) -> tuple[Llama, Alphabet]:
    """A saved policy, ready to sample from, and its tokenizer."""
    tensors, card = load_checkpoint(name, folder) if folder else load_checkpoint(name)
    model = Llama(card.config)
    model.load_state_dict(tensors)
    return model.eval(), card.alphabet


def logger(every: float, greedy: int) -> Callable[[Llama, int, float], None]:
    """Prints the loss and each family's greedy accuracy on `greedy` dev problems, every so many seconds."""
    alphabet, last, began = Alphabet(), [0.0], time.perf_counter()
    held = {f: [p for _, p in zip(range(greedy), problems("dev", Random(1), {f: 1.0}), strict=False)] for f in FAMILIES}

    def watch(model: Llama, tokens: int, loss: float) -> None:
        if time.perf_counter() - last[0] < every:
            return
        line = []
        for letter, some in held.items():
            texts = sample(model, alphabet, [p.prompt for p in some], 0.0)
            right = sum(FAMILIES[letter].score(p.prompt, t) for p, t in zip(some, texts, strict=True))
            line.append(f"{letter} {100 * right / len(some):.0f}")
        last[0] = time.perf_counter()
        print(
            f"{last[0] - began:.0f}s {tokens / 1e6:.2f}M loss {loss:.3f} greedy {' '.join(line)}",
            file=sys.stderr,
            flush=True,
        )

    return watch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a ChainLM policy and save it.")
    parser.add_argument("--size", default="2m", choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=Recipe.tokens)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = Recipe(size=options.size, seed=options.seed, tokens=options.tokens)
    model, cost = train(recipe, logger(every=60, greedy=40))
    name = f"chainlm-{recipe.size}"
    card = save(model, Card(name, "policy", model.config, Alphabet(), asdict(recipe), asdict(cost)), options.out)
    print(f"{name}: {cost.tokens:,} tokens in {cost.seconds:.0f} s, sha256 {card.sha256[:12]}")


if __name__ == "__main__":
    main()
