"""A judge compares candidates in groups, the winners of each round meet in the next, and the last one answers."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, Protocol, cast, runtime_checkable

import numpy as np

from anystep.population import Population
from anystep.procedure import All, Count, Exploring, Rule, Score, procedure, start, step
from anystep.process import Reward
from anystep.search import decide


@runtime_checkable
class Judge(Protocol):
    """Whoever compares: `against(states)` is the reward of being preferred to these, in [0, 1], 1/2 for a tie."""

    def against(self, references: Any) -> Reward: ...


ByJudge = Annotated[
    Judge, Rule("a judge of pairs, such as verify.pairwise(model)", lambda x: callable(getattr(x, "against", None)))
]
Group = Annotated[int, Rule("how many meet at a time, 2 or more", lambda x: isinstance(x, (int, np.integer)) and x > 1)]


@procedure(decide=decide.best_reward)
def tournament(n: Count, judge: ByJudge, group: Group = 2) -> Exploring:
    """n independent samples, run to their end; then rounds in which groups of `group` meet, everyone against everyone,
    and the one most preferred goes on, until one is left. It answers.

    Preserves nothing: the answer is what the judge likes. group=2 is a knockout of n - 1 comparisons, group=n a round
    robin of n (n - 1) / 2; see `comparisons`. A judge without errors finds the best in any of them. Ties, and
    comparisons that are missing, go to the candidate that came first. `scores` are the rounds that each survived.
    Source: Toshniwal et al., "GenSelect: Generative Approach to Best-of-N" (2025), arXiv 2507.17797, whose judge reads
    all of a group at once; here pairs are compared, in both orders where the judge is `verify.pairwise`.
    """
    population = yield from start(n)
    population = yield from step(population, until="done")
    left, scores = np.flatnonzero(population.done).tolist(), np.where(population.done, 0.0, np.nan)
    while len(left) > 1:
        groups = [left[i : i + group] for i in range(0, len(left), group)]
        pairs = [pair for members in groups for pair in combinations(members, 2)]
        asks = tuple(_match(population, judge, *pair) for pair in pairs)
        found = cast(list[Any], (yield All(asks)))
        preferred = dict.fromkeys(left, 0.0)
        for (one, other), value in zip(pairs, found, strict=True):
            share = 0.5 if np.isnan(value[0]) else float(value[0])
            preferred[one] += share
            preferred[other] += 1 - share
        left = [max(members, key=lambda row: preferred[row]) for members in groups]
        scores[left] += 1
    return population.scored(scores)


def _match(population: Population, judge: Judge, one: int, other: int) -> Score:
    return Score(population.take([one]), judge.against(population.take([other]).states))


def comparisons(n: int, group: int = 2) -> int:
    """How many pairs a tournament of n compares, fewer where candidates are equal; a judge that looks at both orders
    reads each twice."""
    total = 0
    while n > 1:
        full, rest = divmod(n, group)
        total += full * group * (group - 1) // 2 + rest * (rest - 1) // 2
        n = full + (rest > 0)
    return total
