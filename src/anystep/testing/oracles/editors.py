"""A critic and a reviser for an enumerable language model, which together leave its law as it is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep.keys import Keys
from anystep.ledger import Cost
from anystep.process import Status
from anystep.testing.oracles.language import EnumerableLM, Sequences
from anystep.testing.oracles.stepwise import Moved, Stepwise


class Critic(Stepwise):
    """Writes on each output the position from which to write anew: uniform on 1..length, in `note`."""

    logp = "mass"
    horizon = 1
    states = Sequences

    def __init__(self, model: EnumerableLM, name: str = "critic") -> None:
        self.model, self.name = model, name

    def begin(self, keys: Keys) -> Any:
        return self.model.begin(keys)

    def forward(self, rows: Keys) -> np.ndarray:
        """The position each key draws."""
        return 1 + np.floor(lineage.uniforms(rows) * self.model.length).astype(np.int64)

    def price(self, states: Sequences) -> Cost:
        return Cost(prompt=1, evaluations=1)

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        n = len(states)
        written = Sequences(states.tokens, states.size, self.forward(keys))
        logp = np.full(n, -np.log(self.model.length))
        return Moved(written, np.full(n, Status.DONE, dtype=np.int8), logp, np.zeros(n))

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.model.answers(states)


class Reviser(Stepwise):
    """Cuts each output before its critic's position and lets the model finish it again.

    A position beyond the end changes nothing and costs nothing. Because the position is drawn without looking at the
    output, critique and revision leave the model's law as it is: a Gibbs step on the rest given the beginning.
    """

    logp = "mass"
    states = Sequences

    def __init__(self, model: EnumerableLM, name: str = "reviser") -> None:
        self.model, self.name, self.horizon = model, name, model.length

    def begin(self, keys: Keys) -> Any:
        return self.model.begin(keys)

    def price(self, states: Sequences) -> Cost:
        return self.model.price(states)

    def free(self, states: Sequences) -> np.ndarray:
        return np.asarray(states.note > states.size)

    def boundary(self, states: Sequences) -> np.ndarray:
        return np.zeros(len(states), dtype=bool)  # a revision is one step

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        works = np.flatnonzero(~self.free(states))
        n, kept = len(states), np.where(states.note > 0, np.minimum(states.note - 1, states.size), states.size)
        begun = Sequences(
            np.where(np.arange(self.model.length) < kept[:, None], states.tokens, np.int8(-1)), kept, states.note * 0
        )
        status, logp = np.full(n, Status.DONE, dtype=np.int8), np.zeros(n)
        result, errors = Sequences(states.tokens, states.size, states.note * 0), dict[int, str]()
        if len(works):
            moved = self.model.advance(begun.take(works), keys[works])
            result, status[works], logp[works] = result.put(works, moved.states), moved.status, moved.logp
            errors = {int(works[i]): text for i, text in moved.errors.items()}
        return Moved(result, status, logp, np.zeros(n), errors)

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.model.answers(states)


class Again(Reviser):
    """Keeps the first `kept` tokens of a finished output and lets the model write the rest again; no critic is needed.

    With kept=0 it draws afresh from the model.
    """

    def __init__(self, model: EnumerableLM, kept: int = 0) -> None:
        super().__init__(model, f"again from {kept}")
        self.kept = kept

    def free(self, states: Sequences) -> np.ndarray:
        return np.asarray((self.model.status(states) == Status.DONE) & (states.size <= self.kept))

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        begins = self.model.status(states) == Status.DONE
        return super().advance(replace(states, note=np.where(begins, 1 + self.kept, 0)), keys)
