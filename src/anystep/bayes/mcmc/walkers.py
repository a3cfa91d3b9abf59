"""Where chains stand, and beside it what their last move was like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from anystep.stepwise import Arrays

Floats = NDArray[np.float64]
PENDING = 6  # numbers that a transition of several evaluations keeps between them


@dataclass(frozen=True, eq=False)
class Walkers(Arrays):
    """n chains' states. position: (n, d). parts: (n, 2), log prior and log likelihood there, NaN where they are not
    known yet. slopes: (n, 2, d), their gradients, NaN where no kernel has asked for them. heat: (n,), the power of the
    likelihood. clock: (n,), units of work behind each. pending: (n, 6), what a transition under way has found, zeros
    between transitions.
    """

    position: Floats
    parts: Floats
    slopes: Floats
    heat: Floats
    clock: NDArray[np.int64]
    pending: Floats

    @classmethod
    def at(cls, position: Floats, heat: float = 1.0) -> Self:
        """Chains that begin at these points, of which nothing is known yet."""
        n, d = position.shape
        unknown = np.full((n, 2), np.nan), np.full((n, 2, d), np.nan)
        clock, pending = np.zeros(n, dtype=np.int64), np.zeros((n, PENDING))
        return cls(np.array(position, dtype=np.float64), *unknown, np.full(n, heat), clock, pending)

    @property
    def log_density(self) -> Floats:
        """(n,), at each chain's heat."""
        return self.tempered(self.heat)

    def tempered(self, heat: Floats) -> Floats:
        """The log density at other heats. Where the likelihood is zero so is it, save at heat 0."""
        with np.errstate(invalid="ignore"):
            return self.parts[:, 0] + np.where(heat == 0, 0.0, heat * self.parts[:, 1])

    @property
    def gradient(self) -> Floats:
        """(n, d), at each chain's heat."""
        return np.asarray(self.slopes[:, 0] + self.heat[:, None] * self.slopes[:, 1])

    def ticked(self) -> Self:
        return replace(self, clock=self.clock + 1)


@dataclass(frozen=True)
class Info:
    """What a move was like. acceptance: (n,), the probability with which it was accepted. accepted: (n,). divergent:
    (n,), whether a trajectory left what its step size can follow. energy_error: (n,), 0 where a kernel has none."""

    acceptance: Floats
    accepted: NDArray[np.bool_]
    divergent: NDArray[np.bool_]
    energy_error: Floats


def mixed(chosen: NDArray[np.bool_], new: Walkers, old: Walkers) -> Walkers:
    """`new` where chosen, else `old`."""
    return old.put(np.flatnonzero(chosen), new.take(np.flatnonzero(chosen)))
