"""A value: what a state of a language model is worth, by a head that was trained on the model's own hidden states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.prefill import opened, portions, read_each
from anystep.ledger import Ledger, Limit
from anystep.process import Floats, Reward, Scored


@dataclass(frozen=True)
class StateValue(Reward):
    """How likely a state is to end well, in [0, 1], read by `head` where its last finished step ends; a state without a
    finished step has `prior`.

    The states are those of `engine`'s own tokens. On the engine that writes them a step is read from what writing had
    left in the prefix cache: of each state its last token alone is fed, as one prompt token on the ledger.
    head: hidden states (n, dim) to values (n,). stop: the token that ends a step; the model's end tokens end one too.
    """

    name: str = "value"
    stop: int = 1
    prior: float = 0.5
    which: str = ""
    engine: Any = field(default=None, compare=False, repr=False)
    head: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), self.prior)
        cut = self._finished(states)
        rows = np.flatnonzero([bool(tokens) for tokens in cut])
        if len(rows):
            values[rows] = self._read([cut[row] for row in rows.tolist()], rows, limit)
        return Scored(values, limit.used)

    def _read(self, sequences: list[tuple[int, ...]], rows: Any, limit: Limit) -> Floats:
        def read(hidden: Tensor, i: int) -> float:
            return float(self.head(hidden[-1:])[0])

        return read_each(self.engine, sequences, rows, limit, read)

    def _finished(self, states: Any) -> list[tuple[int, ...]]:
        """Each state's tokens up to the end of its last finished step, none where there is none."""
        size = getattr(getattr(states, "tokenizer", None), "size", None)
        if size != self.engine.tokenizer.size:
            raise UsageError(f"{self.name} reads what its own model wrote: run it on the engine it was trained with.")
        ends, found = {self.stop, *self.engine.tokenizer.ends}, []
        for tokens, start in zip(states.tokens, states.starts, strict=True):
            last = len(tokens)
            while last > start and tokens[last - 1] not in ends:
                last -= 1
            found.append(tokens[:last] if last > start else ())
        return found

    def forget(self) -> None:
        self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        sequences = [tokens for tokens in self._finished(states) if tokens]
        with self.engine.lock:
            for some in portions(self.engine, sequences):
                _, session = opened(self.engine, [sequences[i] for i in some.tolist()], Limit(Ledger(), self.name))
                if session is not None:
                    session.close()
