"""A router's head: would the large model do better than the step that the small one has drafted?

Both models write the next step from the same states of training problems, a step reward scores both, and the better one
is gone on with. The head learns the difference; of several passes over the examples the one is kept whose
scores rank the differences best on examples held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from anystep.drive import drive
from anystep.errors import UsageError
from anystep.language.accelerate.advantage import WRITERS, Head, Router
from anystep.ledger import Ledger, Limit
from anystep.procedure import Exploring, Method, score, start, step
from anystep.process import Process, Reward
from anystep.run import Run
from anystep.search import decide
from anystep.tasks.chains import problems
from anystep.tasks.chains.draw import task
from anystep.tasks.task import Task

BATCH = 64


@dataclass(frozen=True)
class Examples:
    """Drafted steps: what a head reads of them (n, width), and both steps' rewards (n,)."""

    features: Tensor
    draft: Tensor
    target: Tensor

    @property
    def advantage(self) -> Tensor:
        return self.target - self.draft


@dataclass(frozen=True)
class Fit:
    """How a head is fitted. least: how much better the target's step must be to count as better. annotated: whether the
    head is told who wrote what. regress: learn the difference itself, and not its sign as the paper does. balanced:
    whether both signs weigh the same."""

    hidden: int = 32
    epochs: int = 24
    rate: float = 4e-3
    decay: float = 1e-2
    least: float = 0.05
    annotated: bool = True
    balanced: bool = False
    regress: bool = True
    held: float = 0.15
    seed: int = 0


def training_tasks(n: int, seed: int = 0) -> list[Task]:
    """Training problems, as many of every family."""
    equal = {"C": 1.0, "P": 1.0, "A": 1.0, "L": 1.0}
    return [task(p) for p in islice(problems("train", Random(seed), equal), n)]


def record(
    drafts: Sequence[Process], target: Process, reward: Reward, router: Router, seed: int = 0, threshold: float = 0.0
) -> Examples:
    """Both models' next steps from the same states, going on with the better: one run a process of `drafts`.

    reward: what scores both; router: reads the features, and its head is not asked.
    """
    found: list[tuple[Any, Any]] = []

    def body() -> Exploring:
        population = yield from start(1)
        while population.live.any():
            drafted = yield from step(population)
            again = yield from step(population, by=target)
            ours, its = (yield from score(drafted, reward)), (yield from score(again, reward))
            read = router.read_features(drafted.states, Limit(Ledger(), "features"))
            if 0 in read:
                found.append((read[0], (float(ours[0]), float(its[0]))))
            population = again if its[0] - ours[0] > threshold else drafted
        return population

    method = Method("record", (), body, decide.majority)
    for at in range(0, len(drafts), BATCH):
        runs = [Run(p, method, None, seed + at + i) for i, p in enumerate(drafts[at : at + BATCH])]
        router.forget()
        reward.source().forget()
        target.forget()
        drive(*runs)
    if not found:
        raise UsageError("record(drafts=[...]): no step was drafted; give at least one process.")
    scores = torch.tensor([s for _, s in found], dtype=torch.float32)
    return Examples(torch.stack([f for f, _ in found]), scores[:, 0], scores[:, 1])


def fit(examples: Examples, how: Fit | None = None) -> tuple[Head, float]:
    """The head and its rank correlation with the advantage on the examples held back."""
    how = how or Fit()
    dim = (examples.features.shape[1] - 1 - WRITERS) // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        head = Head(dim, how.hidden)
    x, d = told(examples.features, how.annotated), examples.advantage
    order = np.random.default_rng(how.seed).permutation(len(x))
    back, some = order[: max(1, int(how.held * len(x)))], order[max(1, int(how.held * len(x))) :]
    head.mean.copy_(x[some].mean(0))
    head.spread.copy_(x[some].std(0).clamp(min=1e-3))
    y = (d > how.least).float()
    share = y[some].mean().clamp(0.02, 0.98)
    weight = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share)) if how.balanced else torch.ones(len(y))
    optimiser = torch.optim.AdamW(head.parameters(), lr=how.rate, weight_decay=how.decay)
    rng, best, kept = np.random.default_rng(how.seed + 1), -np.inf, None
    for _ in range(how.epochs):
        for batch in np.array_split(rng.permutation(some), max(1, len(some) // 128)):
            out = head(x[batch])
            each = (
                (out - d[batch]) ** 2
                if how.regress
                else F.binary_cross_entropy_with_logits(out, y[batch], reduction="none")
            )
            loss = (each * weight[batch]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            rank = float(np.nan_to_num(spearmanr(head(x[back]).numpy(), d[back].numpy()).statistic))
        if rank > best:
            best, kept = rank, {k: v.clone() for k, v in head.state_dict().items()}
    assert kept is not None
    head.load_state_dict(kept)
    if not how.annotated:
        head.inner.weight.data[:, -1 - WRITERS : -1] = 0.0
    return head.eval(), best


def told(features: Tensor, annotated: bool) -> Tensor:
    """The features, without the writers where they are not to be told."""
    if annotated:
        return features
    found = features.clone()
    found[:, -1 - WRITERS : -1] = 0.0
    return found
