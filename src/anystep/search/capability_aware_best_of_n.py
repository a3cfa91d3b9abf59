"""Best of as many samples as a sample's own outlook asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, cast

import numpy as np

from anystep.errors import UsageError
from anystep.population import Population
from anystep.procedure import All, ByReward, Count, Exploring, Rule, Share, Step, procedure, score, start, step
from anystep.process import Process, Reward, Until
from anystep.search import decide

Processes = Annotated[
    tuple[Process, ...],
    Rule("processes in brackets", lambda x: isinstance(x, tuple) and all(isinstance(p, Process) for p in x)),
]


@procedure(decide=decide.best_reward)
def capability_aware_best_of_n(
    n: Count,
    reward: ByReward,
    threshold: Share | None = 0.9,
    batch: Count = 1,
    prune_after: Count | None = None,
    keep: Share = 0.5,
    warming: Processes = (),
) -> Exploring:
    """Samples until one is unlikely to be beaten, n at most; the one with the highest reward answers.

    reward: the chance that a fresh sample would not be better, such as `verify.self_evaluation_token()`; it is asked of
    every sample, so of one that is cut short too if `prune_after`. threshold: a sample with this or more is the last
    one; None draws all n. Drawn `batch` at a time. prune_after: after so many steps of a batch, only the share `keep`
    of it with the highest reward goes on (rounded up). warming: processes on the same states, such as the run's own at
    lower temperatures; sample i is drawn by the i-th, and those after them by the run's own.

    Preserves nothing. The samples it draws are the first ones that `sample(n)` draws with the same seed (but for
    warming, and those that are pruned); which one answers is chosen. For a reward that is right, a sample passes at
    once where the model's own further samples would win no more than 1 - threshold of the time: where the problem is
    solved, and where it is hopeless. Raises UsageError for pruning a batch of one.

    Source: Manvi, Singh and Ermon, "Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better, Even
    Mid-Generation" (2024), arXiv 2410.02725.
    """
    if prune_after is not None and batch == 1:
        raise UsageError("pruning needs company: capability_aware_best_of_n(n=16, reward=r, batch=8, prune_after=1).")
    found: Population | None = None
    for drawn in range(0, n, batch):
        size = min(batch, n - drawn)
        makers = [*warming[drawn : drawn + size], *[None] * size][:size]
        some = yield from _drawn(makers, reward, prune_after, keep)
        some = some.scored((yield from score(some, reward)))
        found = some if found is None else found.join(some)
        if threshold is not None and (found.scores >= threshold).any():
            break
    assert found is not None
    return found


def _drawn(makers: list[Process | None], reward: Reward, prune_after: int | None, keep: float) -> Exploring:
    """One finished sample a maker, or of the share that pruning keeps."""
    population = yield from start(len(makers))
    if prune_after is not None:
        for _ in range(prune_after):
            population = yield from _moved(population, makers, "step")
        outlook = np.nan_to_num((yield from score(population, reward)), nan=-np.inf)
        best = np.sort(np.argsort(-outlook, kind="stable")[: max(1, math.ceil(keep * len(makers)))])
        population, makers = population.take(best), [makers[row] for row in best.tolist()]
    return (yield from _moved(population, makers, "done"))


def _moved(population: Population, makers: Sequence[Process | None], until: Until) -> Exploring:
    """Every live row a step on, or to its end, by its own maker."""
    if all(maker is makers[0] for maker in makers):
        return (yield from step(population, by=makers[0], until=until))
    asks = tuple(Step(population.take([row]), by=maker, until=until) for row, maker in enumerate(makers))
    rows = cast(list[Population], (yield All(asks)))
    return rows[0].join(*rows[1:])
