"""REBASE: the rewards of all open states decide, by their softmax, how many children each of them gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystep.population import Population
from anystep.procedure import ByReward, Count, Exploring, Positive, procedure, score, start, step
from anystep.process import Floats
from anystep.search import decide


@procedure(decide=decide.reward_majority, needs_end=True)
def rebase(n: Count, reward: ByReward, temperature: Positive = 0.1) -> Exploring:
    """n states a step, shared out anew after each: an open state gets its softmax share, exp(reward / temperature), of
    what the finished ones leave of n.

    Preserves nothing. A reward that says nothing leaves n independent samples, drawn step by step; the lower the
    temperature, the more go to the best state alone, and a high one gives all alike. Finished outputs keep their
    places, so n of them come to an end (fewer where states failed), each with the reward it had. Shares are whole by
    largest remainders, so that each step makes exactly as many children as there are places: the authors round each
    share by itself. States get several children as draws of their own, also on a process that can `expand`.
    Decision: the answers' votes weighted by reward, as published.
    Source: Wu et al., "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference for LLM
    Problem-Solving" (ICLR 2025), arXiv 2408.00724.
    """
    population = yield from start(n)
    finished: list[Population] = []
    while population.live.any():
        population = yield from step(population)
        population = population.scored((yield from score(population, reward)))
        if population.done.any():
            finished.append(population.take(population.done))
        places = n - sum(map(len, finished))
        hopeful = population.take(population.live & np.isfinite(population.scores))
        if not len(hopeful) and population.live.any():  # nothing is known of any: all alike
            hopeful = population.take(population.live)
            hopeful = hopeful.scored(np.zeros(len(hopeful)))
        if not (places and len(hopeful)):
            break
        shares = np.exp((hopeful.scores - hopeful.scores.max()) / temperature)
        population = hopeful.take(np.repeat(np.arange(len(hopeful)), allotted(shares, places)))
    return finished[0].join(*finished[1:]) if finished else population


def allotted(shares: Floats, places: int) -> NDArray[np.int64]:
    """`places` shared out in whole numbers by largest remainders: each gets its share rounded down or up, equal
    remainders the first of them."""
    exact = shares / shares.sum() * places
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    left = places - int(whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:left]] += 1
    return whole
