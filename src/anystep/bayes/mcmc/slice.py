"""The slice kernel. Source: Neal, "Slice sampling" (Annals of Statistics 2003), stepping out and shrinkage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.kernel import Kernel, Start
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.errors import UsageError
from anystep.keys import Keys

Floats = NDArray[np.float64]
# What a walker keeps between evaluations: the slice's level, its interval, what is being done to it, how many
# evaluations the transition has had, and how often the interval may still step out on this side.
LEVEL, LEFT, RIGHT, PHASE, UNITS, SPARE = range(6)
IDLE, LEFTWARD, RIGHTWARD, SHRINKING = range(4)


class Slice(Kernel):
    """Draws a level under the density, then a point of the slice above that level, along one random direction.

    Leaves the target invariant exactly, whatever the width: a poor one costs evaluations. One unit of work is one
    evaluation, so chains in different parts of their transitions are evaluated side by side, and a budget can stop
    between them.

    width: of the first interval, in units of `scale`, above 0. most: its widest, in widths, split at random between the
    two sides; 1 never steps out. Raises UsageError for anything else.
    """

    tempers = False

    def __init__(self, target: Target, width: float, scale: Any = 1.0, most: int = 100, start: Start = None) -> None:
        super().__init__(target, scale, start)
        if not width > 0:
            raise UsageError(f"Slice(width={width!r}): a length above 0 in units of scale; width=1.0.")
        if not isinstance(most, int) or most < 1:
            raise UsageError(f"Slice(most={most!r}): how many widths an interval may have, 1 or more; most=100.")
        self.width, self.most = float(width), most

    def boundary(self, states: Walkers) -> NDArray[np.bool_]:
        return np.asarray(states.pending[:, PHASE] == IDLE)

    def move(self, walkers: Walkers, keys: Keys) -> tuple[Walkers, Info]:
        began = walkers.clock - walkers.pending[:, UNITS].astype(np.int64)
        d, held = self.target.dimension, walkers.pending.copy()
        line = self.scale(lineage.normals(keys, began, d))
        first = lineage.uniforms(keys[:, None], began[:, None], 2 * d + np.arange(3))
        reach = np.floor(self.most * first[:, 2])
        self._open(held, walkers.log_density, first, reach)
        phase = held[:, PHASE]
        draw = lineage.uniforms(keys, walkers.clock, 2 * d + 3)
        between = held[:, LEFT] + draw * (held[:, RIGHT] - held[:, LEFT])
        along = np.select([phase == LEFTWARD, phase == RIGHTWARD], [held[:, LEFT], held[:, RIGHT]], between)
        tried = self.evaluated(walkers, walkers.position + along[:, None] * line)
        inside = tried.log_density >= held[:, LEVEL]
        ended = self._narrow(held, along, inside)
        chosen = tried.put(np.flatnonzero(~ended), walkers.take(np.flatnonzero(~ended)))
        held[:, UNITS] += 1
        held[ended] = 0.0
        n = len(keys)
        return replace(chosen, pending=held), Info(np.ones(n), ended, np.zeros(n, dtype=bool), np.zeros(n))

    def _open(self, held: Floats, log_density: Floats, first: Floats, reach: Floats) -> None:
        """Give walkers between transitions a level and an interval; go on where an interval may step out no more."""
        new = held[:, PHASE] == IDLE
        held[new, LEVEL] = log_density[new] + np.log1p(-first[new, 0])
        held[new, LEFT] = -self.width * first[new, 1]
        held[new, RIGHT] = held[new, LEFT] + self.width
        held[new, PHASE], held[new, SPARE] = LEFTWARD, reach[new]
        self._turn(held, reach)

    def _turn(self, held: Floats, reach: Floats) -> None:
        """To the other side where there is nothing to spare on this one, and then to shrinking."""
        for phase, spare in ((LEFTWARD, self.most - 1 - reach), (RIGHTWARD, np.zeros(len(held)))):
            spent = (held[:, PHASE] == phase) & (held[:, SPARE] <= 0)
            held[spent, PHASE], held[spent, SPARE] = phase + 1, spare[spent]

    def _narrow(self, held: Floats, along: Floats, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Move the interval by what was seen at `along`; which transitions end there."""
        shrinking = held[:, PHASE] == SHRINKING
        stepping = ~shrinking
        for phase, side, sign in ((LEFTWARD, LEFT, -1), (RIGHTWARD, RIGHT, 1)):
            out = (held[:, PHASE] == phase) & inside
            held[out, side] += sign * self.width
        held[stepping, SPARE] = np.where(inside, held[:, SPARE] - 1, 0)[stepping]
        outside = shrinking & ~inside
        held[outside & (along < 0), LEFT] = along[outside & (along < 0)]
        held[outside & (along >= 0), RIGHT] = along[outside & (along >= 0)]
        return np.asarray(shrinking & inside)
