"""Iterated particle filtering: each sweep runs beside one particle of the sweep before, which cannot be lost."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from anystep.population import Population
from anystep.procedure import Ask, Count, Exploring, Rule, Share, draw, procedure, score, start, step
from anystep.process import Floats, Potential
from anystep.search import decide
from anystep.search.particle import ByPotential, change, effective, log_mean

Several = Annotated[
    int,
    Rule("a whole number, 2 or more", lambda x: isinstance(x, (int, np.integer)) and not isinstance(x, bool) and x > 1),
]


@procedure(decide=decide.weighted_majority, needs_end=True)
def particle_gibbs(n: Several, sweeps: Count, potential: ByPotential | None = None, ess: Share = 1.0) -> Exploring:
    """A particle filter of n, then `sweeps` - 1 more of n - 1 new particles beside a reference: a particle drawn from
    the sweep before by its weight, whose line is kept whole; others may fork from it.

    Target: that of `particle_filter`. A sweep leaves the target invariant whatever n is, so the sweeps' populations
    together, all equal in weight, match it in the limit of `sweeps`, where a filter needs the limit of n. The first
    sweeps still depend on the first filter. `evidence` is that first filter's, unbiased. Resampling is multinomial, and
    done where the effective sample size is below `ess * n`; ess=1 is every step.
    A sweep whose weights are all zero leaves no reference, and the next is a filter of n again.
    Source: Andrieu, Doucet and Holenstein, "Particle Markov chain Monte Carlo methods" (JRSS B 2010); for language
    models the particle Gibbs of Puri et al., "Rollout Roulette" (2025), arXiv 2502.01618.
    """
    reference: Line = []
    found: list[Population] = []
    for _ in range(sweeps):
        swept = yield from sweep(n, potential, ess, reference)
        reference = swept.line
        found.append(swept.population)
    flagged = any(population.flagged for population in found)
    return replace(found[0].join(*found[1:]), evidence=found[0].evidence, flagged=flagged)


Line = list[Population]
"""A particle from its start to its end, one row a step; empty for none."""


@dataclass(frozen=True)
class Swept:
    """One sweep: its weighted population, with the evidence of a filter, and a line drawn from it by its weights."""

    population: Population
    line: Line


def sweep(n: int, potential: Potential | None, ess: float, reference: Line) -> Generator[Ask, Any, Swept]:
    """A particle filter of n whose last particle, where there is a reference, follows it step by step."""
    free = np.arange(n - bool(reference))
    population = _beside((yield from start(len(free))), reference, 0)
    steer = np.zeros(n) if potential is None else (yield from score(population, potential))
    logw, lost = _weighed(np.zeros(n), population.logw + steer, population)
    flagged, evidence = lost, 0.0
    before: list[tuple[Population, NDArray[np.int64]]] = []  # of each step: where it stepped from, and whose copies
    while population.live.any() and np.isfinite(logw).any():
        index = np.arange(n)
        if effective(logw) < ess * n:
            evidence += log_mean(logw)
            index[free] = multinomial(np.exp(logw - logw.max()), (yield from draw(len(free))))
            logw = np.zeros(n)
        before.append((population, index))
        parents, steer = population.take(index), steer[index]
        population = _beside((yield from step(parents.take(free))), reference, len(before))
        ahead = np.zeros(n) if potential is None else (yield from score(population, potential))
        logw, lost = _weighed(logw, (population.logw - parents.logw) + change(steer, ahead), population)
        steer, flagged = ahead, flagged or lost
    alive = bool(np.isfinite(logw).any())
    weights = np.exp(logw - logw.max()) if alive else np.zeros(n)
    weighed = population.scored(steer).weighed(weights)
    line = _line(before, weighed, int(multinomial(weights, (yield from draw(1)))[0])) if alive else []
    return Swept(replace(weighed, evidence=evidence + log_mean(logw), flagged=flagged), line)


def _weighed(logw: Floats, more: Floats, population: Population) -> tuple[Floats, bool]:
    """Log-weights after a step, none for what failed or could not be scored, and whether that was so of any."""
    lost = population.failed | np.isnan(more)
    return np.where(lost, -np.inf, logw + np.where(lost, 0.0, more)), bool(lost.any())


def _beside(population: Population, reference: Line, at: int) -> Population:
    """The free particles with the reference behind them as it was after `at` steps; it may have ended before."""
    return population.join(reference[min(at, len(reference) - 1)]) if reference else population


def _line(before: list[tuple[Population, NDArray[np.int64]]], last: Population, row: int) -> Line:
    line = [last.take([row])]
    for population, index in reversed(before):
        row = int(index[row])
        line.append(population.take([row]))
    return line[::-1]


def multinomial(weights: Floats, u: Floats) -> NDArray[np.int64]:
    """Independent draws from weights (n,), 0 or more and not all 0, one at each u in [0, 1)."""
    edges = np.cumsum(weights)
    found = np.searchsorted(edges, u * edges[-1], side="right")
    return np.asarray(np.minimum(found, len(weights) - 1), dtype=np.int64)
