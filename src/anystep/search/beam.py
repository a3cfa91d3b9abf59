"""Step-level beam search: keep the states a reward likes best, extend, and score again."""

from __future__ import annotations

import numpy as np

from anystep.procedure import ByReward, Count, Exploring, Method, procedure, score, start, step
from anystep.search import decide


@procedure(decide=decide.best_reward, needs_end=True)
def beam(width: Count, reward: ByReward, branch: Count = 4, retire: bool = False, distinct: bool = False) -> Exploring:
    """Keep the `width` best states by reward; extend each live one by `branch` children a step, until all are done.

    retire: a finished state that is kept leaves the beam, which is then one narrower; otherwise it stays as long as its
    reward holds it there. distinct: of equal children one is kept, where the states can tell.

    Preserves nothing: a deterministic top-k by a reward that may be wrong on unfinished states. With branch=1 and
    width=n it is best-of-n scored at each step. Where the process can `expand`, it starts from one state and the
    children are the `branch` most likely ones, so no two states of the beam are equal.
    Source: Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024), arXiv 2408.03314.
    """
    population, retired = (yield from start(width, distinct=branch > 1)), []
    while population.live.any():
        population = yield from step(population, branch)
        if distinct:
            population = population.distinct()
        scores = yield from score(population, reward)
        worth = np.where(population.failed | np.isnan(scores), -np.inf, scores)
        best = np.argsort(-worth, kind="stable")[:width]
        population = population.take(best).scored(scores[best])
        if retire and population.done.any():
            retired.append(population.take(population.done))
            population = population.take(population.live)
            width -= len(retired[-1])
        if population.failed.all():
            break
    everyone = [*retired, population] if len(population) else retired
    return everyone[0].join(*everyone[1:])


def step_beam(width: int, value: ByReward, branch: int = 5) -> Method:
    """The beam of AlphaMath: distinct children, ranked by a `value` of unfinished states; what finishes leaves it, and
    of what has finished the highest value answers.

    Preserves nothing; see `beam`. Source: Chen et al., "AlphaMath Almost Zero" (NeurIPS 2024), arXiv 2405.03553.
    """
    return beam(width, value, branch, retire=True, distinct=True)
