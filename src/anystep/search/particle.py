"""Particle filtering: extend, weigh by the change of a potential, resample where the weights have become uneven."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from anystep.procedure import Count, Exploring, Rule, Share, draw, procedure, score, start, step
from anystep.process import Floats, Potential
from anystep.search import decide

ByPotential = Annotated[
    Potential, Rule("a Potential, in log units, such as reward.log_odds()", lambda x: isinstance(x, Potential))
]


@procedure(decide=decide.weighted_majority, needs_end=True)
def particle_filter(n: Count, potential: ByPotential | None = None, ess: Share = 0.5) -> Exploring:
    """n particles; each step extends them all, adds the change of the potential to their log-weights, and resamples
    systematically when the effective sample size falls below `ess * n`.

    Target: p(x) exp(potential(x)) over finished x, times whatever the process itself observes (its logw). The weighted
    population matches it in the limit of n, whatever the potential says of unfinished states: its changes telescope.
    `evidence` is the log of an unbiased estimate of the target's normalising constant; a finished particle keeps its
    weight. A particle that failed or could not be scored is left out and `flagged` says so; if every weight is zero, so
    are the population's.
    ess: 1 resamples at every step, 0 never (importance sampling).
    Source: Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers" (2006); for language models, Puri et al.,
    "Rollout Roulette" (2025), arXiv 2502.01618, whose filter resamples finished particles by their final odds again at
    each round; this one does not.
    """
    population = yield from start(n)
    steer = np.zeros(n) if potential is None else (yield from score(population, potential))
    lost = population.failed | np.isnan(steer)
    logw, evidence, flagged = np.where(lost, -np.inf, population.logw + steer), 0.0, bool(lost.any())
    while population.live.any():
        if effective(logw) < ess * n and np.isfinite(logw).any():
            evidence += log_mean(logw)
            index = systematic(np.exp(logw - logw.max()), float((yield from draw(1))[0]))
            population, steer, logw = population.take(index), steer[index], np.zeros(n)
            if not population.live.any():
                break
        child = yield from step(population)
        ahead = np.zeros(n) if potential is None else (yield from score(child, potential))
        logw = logw + (child.logw - population.logw) + change(steer, ahead)
        lost = child.failed | np.isnan(logw)
        logw, flagged = np.where(lost, -np.inf, logw), flagged or bool(lost.any())
        population, steer = child, ahead
        if not np.isfinite(logw).any():
            break
    evidence += log_mean(logw)
    weights = np.exp(logw - logw.max()) if np.isfinite(logw).any() else np.zeros(n)
    return replace(population.scored(steer).weighed(weights), evidence=evidence, flagged=flagged)


def change(before: Floats, after: Floats) -> Floats:
    """after - before, where a state that was already impossible stays so."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(before), -np.inf, after - before)


def log_mean(logw: Floats) -> float:
    return float(np.logaddexp.reduce(logw) - np.log(len(logw)))


def effective(logw: Floats) -> float:
    """Effective sample size, 1 / sum of squared normalised weights."""
    if not np.isfinite(logw).any():
        return 0.0
    w = np.exp(logw - logw.max())
    return float(w.sum() ** 2 / (w @ w))


def systematic(weights: Floats, u: float) -> NDArray[np.int64]:
    """Indices of n draws at n evenly spaced points, shifted by one u in [0, 1): row i appears floor or ceil of n w_i
    times, n w_i on average. Source: Kitagawa (1996)."""
    n = len(weights)
    edges = np.cumsum(weights)
    points = (np.arange(n) + u) / n * edges[-1]
    return np.asarray(np.minimum(np.searchsorted(edges, points, side="right"), n - 1))
