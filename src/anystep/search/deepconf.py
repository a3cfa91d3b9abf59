"""DeepConf: votes weighted by token confidence, and chains that are given up while they are being written.

Source: Fu et al., "Deep Think with Confidence" (2025), arXiv 2508.15260.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Any

import numpy as np

from anystep.population import Decision, Population
from anystep.procedure import Ask, ByReward, Count, Exploring, Rule, Share, procedure, read, score, start, step
from anystep.process import Floats, Reward
from anystep.search import decide

Keep = Annotated[
    float, Rule("a share in (0, 1]", lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and 0 < x <= 1)
]


def _decision(n: int, confidence: Reward, keep: float) -> Decision:
    return decide.confidence_weighted(keep)


@procedure(decide=_decision)
def deepconf(n: Count, confidence: ByReward, keep: Keep = 0.9) -> Exploring:
    """n independent samples; the share `keep` of them with the highest confidence votes, each as much as its own.

    confidence: 0 or more, such as `verify.token_confidence(engine)`. Preserves nothing; with keep=1 and a confidence
    that is the same for all it is self-consistency.
    """
    population = yield from start(n)
    population = yield from step(population, until="done")
    return population.scored((yield from score(population, confidence)))


@procedure(decide=decide.confidence_weighted(), needs_end=True)
def deepconf_online(
    n: Count, confidence: ByReward, keep: Keep = 0.9, warmup: Count = 4, sure: Share = 0.95
) -> Exploring:
    """As `deepconf`, but chains of too little confidence are given up in mid-generation, and the vote may end early.

    The first `warmup` samples are written out; the confidence that the share `keep` of them reaches is the bar. The
    others come `warmup` at a time, step by step; one whose confidence so far is under the bar is given up, and has no
    vote. No more are begun once the leading answer has the share `sure` of the weighted votes (1: all n are).

    Preserves nothing. Where the confidence of a chain can only fall as it grows (the lowest of its groups), the votes
    of sure=1 are those of the samples at or above the bar, exactly; what is saved is the rest of the others.
    """
    population = yield from step((yield from start(min(warmup, n))), until="done")
    scores = yield from score(population, confidence)
    bar = _bar(scores[population.done], keep)
    while len(population) < n and not (sure < 1 and (yield from _agreed(population, scores, bar, sure))):
        fresh = yield from start(min(warmup, n - len(population)))
        own = np.full(len(fresh), np.nan)
        while (going := fresh.live & ~(own < bar)).any():
            moved = yield from step(fresh.take(going))
            fresh = fresh.put(going, moved)
            own[going] = yield from score(moved, confidence)
        population, scores = population.join(fresh), np.concatenate([scores, own])
    return population.scored(np.where(scores < bar, np.nan, scores))


def _bar(scores: Floats, keep: float) -> float:
    """The least of the `keep` highest scores; minus infinity where there is none."""
    known = np.sort(scores[~np.isnan(scores)])[::-1]
    return float(known[max(1, int(np.ceil(round(keep * len(known), 9)))) - 1]) if len(known) else -np.inf


def _agreed(population: Population, scores: Floats, bar: float, sure: float) -> Generator[Ask, Any, bool]:
    """Whether the leading answer has the share `sure` of the weighted votes."""
    said = yield from read(population)
    verdict = decide.confidence_weighted()(said.scored(np.where(scores < bar, np.nan, scores)))
    return verdict.support is not None and verdict.support >= sure
