"""The Gibbs kernel: each block of coordinates in turn from its conditional. Source: Geman and Geman (PAMI 1984)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.kernel import Kernel, Start
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.errors import ModelError, UsageError
from anystep.keys import Keys
from anystep.ledger import Cost

Floats = NDArray[np.float64]


class Randomness:
    """Numbers for one sweep of n rows: each row's are its own key's, at its clock."""

    def __init__(self, keys: Keys, clock: NDArray[np.int64]) -> None:
        self.keys, self.clock, self.lane = keys, clock, 0

    def uniforms(self, size: int = 1) -> Floats:
        """(n, size), in [0, 1)."""
        lanes = self.lane + np.arange(size)
        self.lane += size
        return lineage.uniforms(self.keys[:, None], self.clock[:, None], lanes)

    def normals(self, size: int = 1) -> Floats:
        """(n, size), standard."""
        u = self.uniforms(2 * size)
        return np.asarray(np.sqrt(-2 * np.log1p(-u[:, ::2])) * np.cos(2 * np.pi * u[:, 1::2]))


Update = Callable[[Floats, Randomness], Floats]


class Gibbs(Kernel):
    """One transition is a sweep: each update in turn replaces some coordinates by a draw from their conditional.

    Leaves the target invariant exactly if every update does, which each says of itself; nothing here can check it.

    updates: functions of positions (n, d) and `Randomness`, to positions (n, d); `Enumerated` for a coordinate of few
    values. One evaluation is one update of one row, or one value of an enumerated one. What the target is where a sweep
    ends is not computed. Raises UsageError for no update, or one that changes the shape.
    """

    tempers = False

    def __init__(self, target: Target, updates: Sequence[Update], start: Start = None) -> None:
        super().__init__(target, start=start)
        if not updates:
            raise UsageError("Gibbs(target, updates=[]) never moves; Gibbs(target, [update_mean, update_variance]).")
        self.updates = tuple(updates)

    def units(self) -> int:
        return sum(getattr(update, "evaluations", 1) for update in self.updates)

    def once(self, states: Walkers) -> Cost:
        return Cost(calls=len(self.updates))

    def unknown(self, walkers: Walkers) -> NDArray[np.bool_]:
        return np.zeros(len(walkers), dtype=bool)

    def move(self, walkers: Walkers, keys: Keys) -> tuple[Walkers, Info]:
        position, randomness = walkers.position, Randomness(keys, walkers.clock)
        for update in self.updates:
            after = np.asarray(self.swept(position, update, randomness), dtype=np.float64)
            if after.shape != position.shape:
                raise UsageError(f"an update made shape {after.shape} of {position.shape}; return all coordinates.")
            position = after
        n, d = position.shape
        unknown = replace(walkers, position=position, parts=np.full((n, 2), np.nan), slopes=np.full((n, 2, d), np.nan))
        return unknown, Info(np.ones(n), np.ones(n, dtype=bool), np.zeros(n, dtype=bool), np.zeros(n))

    def swept(self, position: Floats, update: Update, randomness: Randomness) -> Floats:
        return update(position, randomness)


@dataclass(frozen=True)
class Enumerated:
    """An update that draws one coordinate from its exact conditional over a few values, by evaluating them all.

    Raises UsageError for no values or no such coordinate; ModelError where every value has zero density.
    """

    target: Target
    coordinate: int
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not 0 <= self.coordinate < self.target.dimension:
            raise UsageError(
                f"Enumerated(coordinate={self.coordinate}, values={self.values}): one of the target's "
                f"{self.target.dimension} coordinates and its values; Enumerated(target, 0, (0.0, 1.0))."
            )

    @property
    def evaluations(self) -> int:
        return len(self.values)

    def __call__(self, position: Floats, randomness: Randomness) -> Floats:
        n, k = len(position), len(self.values)
        tried = np.repeat(position, k, axis=0)
        tried[:, self.coordinate] = np.tile(self.values, n)
        log = self.target.parts(tried).sum(-1).reshape(n, k)
        if np.isneginf(log.max(-1)).any():
            raise ModelError(
                f"{self.target.name}: no value of coordinate {self.coordinate} has a density where a chain is."
            )
        mass = np.exp(log - log.max(-1, keepdims=True))
        after = position.copy()
        after[:, self.coordinate] = np.asarray(self.values)[lineage.choose(mass, randomness.uniforms()[:, 0])]
        return after
