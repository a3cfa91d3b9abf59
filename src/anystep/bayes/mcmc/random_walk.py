"""The random-walk Metropolis kernel. Source: Metropolis et al. (1953); Roberts, Gelman and Gilks (1997)."""

from __future__ import annotations

from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep.bayes.mcmc.kernel import Kernel, Start
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.walkers import Floats, Info, Walkers, mixed
from anystep.errors import UsageError
from anystep.keys import Keys


class RandomWalk(Kernel):
    """x' = x + step S z, z standard normal, accepted with probability min(1, p(x') / p(x)).

    Leaves the target invariant exactly. Needs no gradient; in d dimensions a step near 2.4 / sqrt(d), with S S^T the
    target's covariance, accepts about a quarter.

    step: in units of `scale`, above 0. Raises UsageError for another.
    """

    def __init__(self, target: Target, step: float, scale: Any = 1.0, start: Start = None) -> None:
        super().__init__(target, scale, start)
        if not step > 0:
            raise UsageError(f"RandomWalk(step={step!r}): a length above 0 in units of scale; step=0.5.")
        self.step_size = float(step)

    def move(self, walkers: Walkers, keys: Keys) -> tuple[Walkers, Info]:
        d = self.target.dimension
        proposed = self.evaluated(
            walkers, walkers.position + self.step_size * self.scale(lineage.normals(keys, walkers.clock, d))
        )
        return decided(walkers, proposed, lineage.uniforms(keys, walkers.clock, 2 * d))


def decided(old: Walkers, new: Walkers, u: Floats, also: Any = 0.0) -> tuple[Walkers, Info]:
    """Metropolis and Hastings: `new` with probability min(1, exp(also) p(new) / p(old)), refused where that is NaN.

    u: (n,) uniform. also: (n,) log ratio of the proposals' densities, back over forth.
    """
    with np.errstate(invalid="ignore"):
        ratio = new.log_density - old.log_density + also
    ratio = np.where(np.isnan(ratio), -np.inf, ratio)
    acceptance = np.exp(np.minimum(ratio, 0.0))
    accepted = u < acceptance
    return mixed(accepted, new, old), Info(acceptance, accepted, np.zeros(len(u), dtype=bool), np.zeros(len(u)))
