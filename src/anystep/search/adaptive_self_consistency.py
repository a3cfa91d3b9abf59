"""A vote that stops when it is decided, or when it is as good as decided."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from anystep.procedure import Count, Exploring, Share, procedure, read, start, step
from anystep.search import decide


@procedure(decide=decide.majority)
def adaptive_self_consistency(n: Count, sure: Share = 0.95, batch: Count = 1) -> Exploring:
    """Samples, `batch` at a time and at most n; the vote stops when its leader cannot be overtaken by the samples that
    are left, or is ahead of the next answer with probability `sure`. The answer that most of them give.

    Preserves the answer of `self_consistency(n)` exactly, seed by seed, with sure=1, where only the first rule holds.
    With less, the answer at a stop is the likelier of the two leading ones with probability `sure` or more, under a
    uniform prior for the share between them: over questions, not for each. Where two answers are equally likely no
    number of samples tells them apart, and the two votes may differ.
    Source: Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with
    LLMs" (EMNLP 2023), the Beta criterion.
    """
    fresh = yield from start(min(batch, n))
    population = yield from step(fresh, until="done")
    while len(population) < n:
        said = (yield from read(population)).answers or ()
        votes = [a for a, done in zip(said, population.done, strict=True) if done and a is not None]
        if settled(votes, n - len(population)) or (sure < 1 and ahead(votes) >= sure):
            break
        fresh = yield from start(min(batch, n - len(population)))
        population = population.join((yield from step(fresh, until="done")))
    return population


def settled(votes: Sequence[Hashable], left: int) -> bool:
    """Whether `left` more votes, whatever they say, leave the winner as it is; a tie goes to who came first."""
    counts = Counter(votes)
    leader = max(counts, key=lambda a: counts[a], default=None)  # the first of the largest
    if leader is None:
        return left == 0
    before = True
    for answer, count in counts.items():
        if answer == leader:
            before = False
        elif count + left > counts[leader] - before:
            return False
    return left <= counts[leader]


def ahead(votes: Sequence[Hashable]) -> float:
    """The probability that the leading answer is likelier than the next one, under a uniform prior for its share
    between the two: with v and w votes, that a Beta(v + 1, w + 1) variable is above one half. 0 without votes."""
    if not votes:
        return 0.0
    counts = sorted(Counter(votes).values(), reverse=True)
    first, second = counts[0], counts[1] if len(counts) > 1 else 0
    games = first + second + 1
    return float(sum(math.comb(games, j) for j in range(first + 1)) / 2**games)
