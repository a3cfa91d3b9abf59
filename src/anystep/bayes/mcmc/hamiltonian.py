"""Hamiltonian Monte Carlo, and the Langevin kernel that is its case of one step.

Source: Duane et al. (1987); Neal, "MCMC using Hamiltonian dynamics" (2011, arXiv 1206.1901); for MALA Roberts and
Tweedie (1996).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.kernel import Kernel, Start
from anystep.bayes.mcmc.random_walk import decided
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.errors import UsageError
from anystep.keys import Keys

Floats = NDArray[np.float64]
DIVERGENT = 1000.0  # an energy error past which a trajectory says nothing any more


class HMC(Kernel):
    """Follows the target's gradient along `steps` leapfrog steps from a fresh velocity; the end is accepted or not.

    Leaves the target invariant exactly. One transition is `steps` evaluations with gradient, paid before it begins.

    step_size: of the leapfrog, in units of `scale`, above 0. steps: of a trajectory, 1 or more. jitter: in [0, 1): each
    trajectory's step size is drawn in step_size * [1 - jitter, 1 + jitter], which breaks the resonance of a fixed
    length with a round target. Raises UsageError for anything else.
    """

    slopes = True

    def __init__(
        self,
        target: Target,
        step_size: float,
        steps: int = 10,
        scale: Any = 1.0,
        jitter: float = 0.0,
        start: Start = None,
    ) -> None:
        super().__init__(target, scale, start)
        if not step_size > 0:
            raise UsageError(f"HMC(step_size={step_size!r}): a length above 0 in units of scale; step_size=0.1.")
        if not isinstance(steps, int) or steps < 1:
            raise UsageError(f"HMC(steps={steps!r}): leapfrog steps of a trajectory, 1 or more; steps=10.")
        if not 0 <= jitter < 1:
            raise UsageError(f"HMC(jitter={jitter!r}): a share of the step size in [0, 1); jitter=0.1.")
        self.step_size, self.steps, self.jitter = float(step_size), steps, float(jitter)

    def units(self) -> int:
        return self.steps

    def move(self, walkers: Walkers, keys: Keys) -> tuple[Walkers, Info]:
        d, clock = self.target.dimension, walkers.clock
        velocity = lineage.normals(keys, clock, d)
        u = lineage.uniforms(keys[:, None], clock[:, None], 2 * d + np.arange(2))
        step = (self.step_size * (1 + self.jitter * (2 * u[:, 1] - 1)))[:, None]
        end, arrived = self.leapfrog(walkers, velocity, step)
        with np.errstate(invalid="ignore", over="ignore"):
            kinetic = 0.5 * ((velocity**2).sum(-1) - (arrived**2).sum(-1))
            after, info = decided(walkers, end, u[:, 0], kinetic)
            error = walkers.log_density - end.log_density - kinetic
            divergent = ~(np.abs(error) < DIVERGENT)
        return after, replace(info, divergent=divergent, energy_error=error)

    def leapfrog(self, walkers: Walkers, velocity: Floats, step: Floats) -> tuple[Walkers, Floats]:
        """Where the dynamics lead, and the velocity there. In the coordinates that `scale` makes round the mass is
        one, so no inverse of it is needed."""
        at = walkers
        with np.errstate(invalid="ignore", over="ignore"):
            velocity = velocity + 0.5 * step * self.scale.back(at.gradient)
            for turn in range(self.steps):
                at = self.evaluated(at, at.position + step * self.scale(velocity))
                last = turn == self.steps - 1
                velocity = velocity + (0.5 if last else 1.0) * step * self.scale.back(at.gradient)
        return at, velocity


def mala(target: Target, step_size: float, scale: Any = 1.0, start: Start = None) -> HMC:
    """The Metropolis-adjusted Langevin kernel: x' = x + step^2/2 S S^T grad log p(x) + step S z, then accepted or not.

    It is Hamiltonian Monte Carlo with one leapfrog step, to the last term of the acceptance ratio. Leaves the target
    invariant exactly; about 57% accepted is best in high dimension. step_size: in units of `scale`, above 0.
    """
    return HMC(target, step_size, 1, scale, start=start)
