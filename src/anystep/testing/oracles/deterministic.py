"""A process that cannot branch: one state has one child."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.process import Status
from anystep.stepwise import Moved, Stepwise
from anystep.testing.oracles.endless import Sites


class Countdown(Stepwise):
    """Starts at a random number in 1..top and counts down to 0, one a step."""

    logp = "mass"
    branches = False
    states = Sites

    def __init__(self, top: int = 5, name: str = "countdown") -> None:
        if top < 1:
            raise UsageError(f"Countdown(top={top}): top is 1 or more; call Countdown(top=5).")
        self.top, self.horizon, self.name = top, top, name

    def forward(self, rows: np.ndarray) -> np.ndarray:
        """The number after each."""
        return np.asarray(rows - 1)

    def begin(self, keys: Keys) -> Sites:
        first = 1 + np.floor(lineage.uniforms(keys) * self.top).astype(np.int64)
        return Sites(first, np.zeros(len(keys), dtype=np.int64))

    def advance(self, states: Sites, keys: Keys) -> Moved:
        left = self.forward(states.site)
        zeros = np.zeros(len(left))
        status = np.where(left == 0, np.int8(Status.DONE), np.int8(Status.LIVE))
        return Moved(Sites(left, states.t + 1), status, zeros, zeros)

    def answers(self, states: Sites) -> tuple[Hashable, ...]:
        """How many steps it took."""
        return tuple(states.t.tolist())
