"""Parallel particle filtering: islands that never exchange a particle, weighed by what each says of the evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anystep.procedure import Count, Exploring, Share, procedure
from anystep.search import decide
from anystep.search.particle import ByPotential, log_mean, particle_filter
from anystep.search.together import side_by_side


@procedure(decide=decide.weighted_majority, needs_end=True)
def particle_islands(islands: Count, n: Count, potential: ByPotential | None = None, ess: Share = 0.5) -> Exploring:
    """`islands` independent particle filters of n particles each, driven side by side in one batch a step; an island's
    particles weigh as much as its estimate of the evidence.

    Target: that of `particle_filter`, and the mean of the islands' estimates is as unbiased an `evidence` as each of
    them. The weighted population matches the target in the limit of `islands`, for any n, because the weights of
    unbiased estimates add up; with equal weights an island the bias of n would remain. With one island it is
    `particle_filter`, with n=1 importance sampling. Islands share nothing, so they keep apart what one filter of
    islands * n particles, resampling, would make alike.
    Source: the parallel filters of Puri et al., "Rollout Roulette" (2025), arXiv 2502.01618, which choose from all
    outputs alike; the weights are those of Whiteley, Lee and Heine, "On the role of interaction in sequential Monte
    Carlo algorithms" (Bernoulli 2016).
    """
    filters = [particle_filter(n=n, potential=potential, ess=ess)() for _ in range(islands)]
    populations = yield from side_by_side(filters)
    found = np.array([-np.inf if p.evidence is None else p.evidence for p in populations])
    size = np.exp(found - found.max()) if np.isfinite(found).any() else np.zeros(islands)
    weights = np.concatenate([p.weights * s for p, s in zip(populations, size, strict=True)])
    joined = populations[0].join(*populations[1:])
    return replace(joined.weighed(weights), evidence=log_mean(found))
