"""A Markov kernel as an endless process: a step is one transition of every chain; its states go with any kernel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost
from anystep.process import Status
from anystep.stepwise import Moved, Stepwise

Floats = NDArray[np.float64]
Start = Callable[[Keys], Floats] | Floats | None
START = lineage.named("start")
WIDE = 2.0  # chains begin in a box of this half-width, so that they begin apart


@dataclass(frozen=True)
class Scale:
    """The linear map S that makes the target round: moves are drawn round and stretched by S, so a step size is in
    units of it, and S S^T is the covariance that a kernel believes in.

    matrix: (d, d), (d,) for a diagonal, or a number.
    """

    matrix: Any = 1.0

    def __post_init__(self) -> None:
        held = np.array(self.matrix, dtype=np.float64)
        if held.ndim > 2 or (held.ndim == 2 and held.shape[0] != held.shape[1]) or not np.isfinite(held).all():
            raise UsageError(
                f"scale of shape {held.shape}: a finite number, (d,) or (d, d); scale=np.linalg.cholesky(covariance)."
            )
        object.__setattr__(self, "matrix", held)

    def __call__(self, u: Floats) -> Floats:
        """S u, row by row: (n, d). Summed without a matrix product, whose last bits depend on the batch."""
        return np.asarray((u[:, None, :] * self.matrix).sum(-1) if self.matrix.ndim == 2 else u * self.matrix)

    def back(self, g: Floats) -> Floats:
        """S^T g, which takes a gradient to where the moves are drawn."""
        return np.asarray((g[:, None, :] * self.matrix.T).sum(-1) if self.matrix.ndim == 2 else g * self.matrix)

    def fits(self, dimension: int) -> bool:
        return all(length in (1, dimension) for length in self.matrix.shape)


def begins(keys: Keys) -> Keys:
    """Keys that starts are drawn by: a chain's own would draw its first move from the same numbers."""
    return lineage.children(keys, START, 0)


def priced(units: int, more: NDArray[Any]) -> Cost | list[Cost]:
    """One cost for all where no walker needs more than its units, as in every transition but a chain's first."""
    return [Cost(evaluations=units + int(n)) for n in more] if more.any() else Cost(evaluations=units)


class Kernel(Stepwise):
    """A chain on R^d that leaves its target invariant; subclasses say how one unit of work moves.

    target: what to leave invariant. scale: see `Scale`. start: where chains begin: points (m, d), of which each chain
    takes one by its key, or a function of keys (n,) to (n, d), which are of that start's own and draw anything; drawn
    in the box [-2, 2]^d by default.

    One evaluation is one point at which the target (and its gradient, where the kernel uses it) is computed; a chain
    whose density is not known yet pays one more. A state's answer is its position.
    """

    states: ClassVar[type[Walkers]] = Walkers
    horizon, logp = None, "unknown"
    slopes = False  # whether it needs gradients
    tempers = True  # whether it moves at other heats than 1, in one unit of work

    def __init__(self, target: Target, scale: Any = 1.0, start: Start = None) -> None:
        if not isinstance(target, Target):
            raise UsageError(f"{type(self).__name__}({target!r}): give a Target(log_density, dimension=...).")
        self.target, self.scale, self.beginning = target, Scale(scale), start
        if not self.scale.fits(target.dimension):
            raise UsageError(f"scale has shape {self.scale.matrix.shape}, the target {target.dimension} dimensions.")
        self.name = f"{type(self).__name__}({target.name})"

    @abstractmethod
    def move(self, walkers: Walkers, keys: Keys) -> tuple[Walkers, Info]:
        """One unit of work on walkers whose density is known, drawing at their clocks."""

    def units(self) -> int:
        """Evaluations in one unit of work."""
        return 1

    def forward(self, position: Floats) -> tuple[Floats, Floats]:
        """The target's parts and slopes at these points; NaN slopes for a kernel that needs none."""
        if self.slopes:
            return self.target.parts_and_slopes(position)
        return self.target.parts(position), np.full((len(position), 2, self.target.dimension), np.nan)

    def begin(self, keys: Keys) -> Walkers:
        d, own = self.target.dimension, begins(keys)
        if self.beginning is None:
            position = WIDE * (2 * lineage.uniforms(own[:, None], 0, np.arange(d)) - 1)
        elif callable(self.beginning):
            position = np.asarray(self.beginning(own), dtype=np.float64)
        else:
            points = np.atleast_2d(np.asarray(self.beginning, dtype=np.float64))
            position = points[(keys % np.uint64(len(points))).astype(np.int64)]
        if position.shape != (len(keys), d):
            raise UsageError(
                f"start gave points of shape {position.shape}; {len(keys)} chains need ({len(keys)}, {d})."
            )
        return Walkers.at(position)

    def unknown(self, walkers: Walkers) -> NDArray[np.bool_]:
        """Which walkers must be evaluated where they stand before they can move."""
        missing = np.isnan(walkers.parts[:, 0])
        return missing | np.isnan(walkers.slopes[:, 0, 0]) if self.slopes else missing

    def price(self, states: Walkers) -> Cost | Sequence[Cost]:
        return priced(self.units(), self.unknown(states))

    def once(self, states: Walkers) -> Cost:
        return Cost(calls=self.units() + bool(self.unknown(states).any()))

    def known(self, walkers: Walkers) -> Walkers:
        """The same walkers, evaluated where they were not."""
        rows = np.flatnonzero(self.unknown(walkers))
        if len(rows) == 0:
            return walkers
        missing = walkers.take(rows)
        return walkers.put(rows, self.evaluated(missing, missing.position))

    def evaluated(self, walkers: Walkers, position: Floats) -> Walkers:
        """Walkers with another position, at which the target is evaluated."""
        parts, slopes = self.forward(position)
        return replace(walkers, position=position, parts=parts, slopes=slopes)

    def advance(self, states: Walkers, keys: Keys) -> Moved:
        before = self.known(states)
        after, _ = self.move(before, keys)
        zeros = np.zeros(len(states))
        stuck = np.isneginf(before.log_density) & np.isneginf(after.log_density)
        status = np.where(stuck & self.boundary(after), Status.FAILED, Status.LIVE).astype(np.int8)
        message = f"{self.name}: the target's density is zero where the chain stands; give start=points inside it."
        errors = {int(row): message for row in np.flatnonzero(status == Status.FAILED)}
        return Moved(after.ticked(), status, zeros, zeros, errors)

    def answers(self, states: Walkers) -> tuple[Hashable, ...]:
        return tuple(tuple(row) for row in states.position.tolist())
