"""Euler's method on the probability-flow ODE: first order, one evaluation a step."""

from __future__ import annotations

from dataclasses import dataclass

from anystep.diffusion.solvers.solver import Here, Reached, Solver


@dataclass(frozen=True)
class Euler(Solver):
    """x + (t' - t) dx/dt, in the schedule's own time.

    Preserves the model's law as steps grow: the error falls as 1 / steps. On a flow it follows the velocity, on a VE
    schedule it equals DDIM. steps: 1 or more, one evaluation each.
    """

    def step(self, here: Here) -> Reached:
        return Reached(here.x + (here.then.t - here.now.t) * here.now.velocity(here.x, here.clean))
