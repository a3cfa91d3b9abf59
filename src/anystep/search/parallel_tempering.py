"""Particle Gibbs at several temperatures at once, whose references change places."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from anystep.ledger import Limit
from anystep.population import Population
from anystep.procedure import Count, Exploring, Rule, Share, draw, procedure
from anystep.process import Floats, Potential, Reward, Scored
from anystep.search import decide
from anystep.search.particle_gibbs import Line, Several, sweep
from anystep.search.together import side_by_side


def _cooling(x: Any) -> bool:
    numbers = isinstance(x, tuple) and len(x) > 0 and all(isinstance(t, (int, float)) for t in x)
    return numbers and x[-1] == 1 and np.isfinite(x[0]) and all(a > b for a, b in zip(x, x[1:], strict=False))


Cooling = Annotated[tuple[float, ...], Rule("temperatures that fall to 1, such as (4.0, 2.0, 1.0)", _cooling)]
Required = Annotated[
    Potential, Rule("a Potential, in log units, such as reward.log_odds()", lambda x: isinstance(x, Potential))
]


@procedure(decide=decide.weighted_majority, needs_end=True)
def parallel_tempering(
    n: Several, sweeps: Count, potential: Required, temperatures: Cooling = (4.0, 2.0, 1.0), ess: Share = 1.0
) -> Exploring:
    """A `particle_gibbs` for each temperature T, on the potential divided by T, side by side in one batch a step; after
    each sweep neighbours exchange their references, with the probability that leaves all their targets invariant.

    Target: that of `particle_filter`, in the limit of `sweeps`, for what ran at temperature 1. Hotter chains lie nearer
    to the process itself, and hand on references that a cold chain would rarely draw. Their outputs are returned too,
    with weight zero: a vote does not see them, `.deciding(search.best_reward)` does. With temperatures=(1.0,) it is
    `particle_gibbs`. `evidence` is the first cold filter's, unbiased.
    Source: Puri et al., "Rollout Roulette" (2025), arXiv 2502.01618, whose experiments exchange nothing; exchange after
    Geyer, "Markov chain Monte Carlo maximum likelihood" (1991).
    """
    lines: list[Line] = [[] for _ in temperatures]
    found: list[list[Population]] = []
    for _ in range(sweeps):
        swept = yield from side_by_side(
            [sweep(n, Tempered(potential, t), ess, line) for t, line in zip(temperatures, lines, strict=True)]
        )
        found.append([s.population.scored(s.population.scores * t) for s, t in zip(swept, temperatures, strict=True)])
        lines = exchanged([s.line for s in swept], temperatures, (yield from draw(len(temperatures) - 1)))
    cold = [populations[-1] for populations in found]
    every = [*cold, *(population for populations in found for population in populations[:-1])]
    weights = np.concatenate([population.weights * (i < len(cold)) for i, population in enumerate(every)])
    joined = every[0].join(*every[1:]).weighed(weights)
    return replace(joined, evidence=cold[0].evidence, flagged=any(population.flagged for population in cold))


def exchanged(lines: list[Line], temperatures: tuple[float, ...], u: Floats) -> list[Line]:
    """Neighbours' references, from the hottest pair on, exchanged with probability min(1, ratio of the joint targets):
    log ratio is the difference of 1/T times that of the potentials, hot minus cold. u: (pairs,) in [0, 1)."""
    lines = list(lines)
    worth = [line[-1].scores[0] * t if line else np.nan for line, t in zip(lines, temperatures, strict=True)]
    for k in range(len(lines) - 1):
        ratio = (1 / temperatures[k + 1] - 1 / temperatures[k]) * (worth[k] - worth[k + 1])
        if np.log(u[k]) < ratio:  # never where one of them has no reference
            lines[k], lines[k + 1] = lines[k + 1], lines[k]
            worth[k], worth[k + 1] = worth[k + 1], worth[k]
    return lines


@dataclass(frozen=True)
class Tempered(Potential):
    """A potential divided by a temperature; paid as the potential itself is, and once for all temperatures."""

    potential: Potential
    temperature: float

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.potential.name}/{self.temperature:g}"

    def source(self) -> Reward:
        return self.potential.source()

    def read(self, values: Floats) -> Floats:
        return self.potential.read(values) / self.temperature

    def __call__(self, states: Any, limit: Limit) -> Scored:
        scored = self.source()(states, limit)
        return Scored(self.read(scored.values), scored.cost)
