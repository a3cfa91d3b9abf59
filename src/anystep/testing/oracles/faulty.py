"""An enumerable language model whose states fail now and then, after they were paid for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.process import Status
from anystep.stepwise import Moved
from anystep.testing.oracles.language import EnumerableLM, Sequences


class FaultyLM(EnumerableLM):
    """Each token fails with probability `share`, drawn by the state's own key; 1 fails every state, 0 none."""

    def __init__(self, share: float = 0.1, seed: int = 0, vocab: int = 3, length: int = 5, width: int = 1) -> None:
        if not 0 <= share <= 1:
            raise UsageError(f"FaultyLM(share={share}): share is a probability in [0, 1]; call FaultyLM(share=0.1).")
        super().__init__(seed, vocab, length, width, name="faulty-lm")
        self.share = share

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        moved = super().advance(states, keys)
        fails = lineage.uniforms(keys, states.size, 1) < self.share
        status = np.where(fails, np.int8(Status.FAILED), moved.status)
        errors = {i: f"token {states.size[i]} was lost" for i in np.flatnonzero(fails).tolist()}
        return replace(moved, status=status, errors=errors)
