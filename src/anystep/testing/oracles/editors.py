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
from anystep.stepwise import Moved, Stepwise
from anystep.testing.oracles.language import EOS, EnumerableLM, Sequences


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


class Relay(Stepwise):
    """Begins the next round of an enumerable language model: what `search.infty_think` steps its states by.

    An output that ended with token 0 concluded. One that ran into the length without it ended in a summary, its last
    token: the next round begins with that token alone, and `note` counts it. One whose last token is `cut` has no
    summary, and is begun again from what it had begun from.
    """

    logp = "mass"
    states = Sequences
    horizon = 1
    branches = False

    def __init__(self, model: EnumerableLM, cut: int = 1, name: str = "relay") -> None:
        self.model, self.cut, self.name = model, cut, name

    def begin(self, keys: Keys) -> Any:
        return self.model.begin(keys)

    def free(self, states: Sequences) -> np.ndarray:
        return np.ones(len(states), dtype=bool)

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        n = len(states)
        last = states.tokens[np.arange(n), np.maximum(states.size - 1, 0)]
        done, cut = (last == EOS) & (states.size > 0), last == self.cut
        size = np.where(cut, states.note, 1)
        kept = np.where(np.arange(self.model.length) < size[:, None], states.tokens, np.int8(-1))
        kept[:, 0] = np.where(cut, kept[:, 0], last)
        begun = Sequences(kept.astype(np.int8), size, size)
        result = begun.put(np.flatnonzero(done), states.take(np.flatnonzero(done)))
        return Moved(result, np.where(done, Status.DONE, Status.LIVE).astype(np.int8), np.zeros(n), np.zeros(n))

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
