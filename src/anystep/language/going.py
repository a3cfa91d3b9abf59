"""One step of a language model's states: what it has come to, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anystep.keys import Keys
from anystep.language.states import Piece, Sequences
from anystep.ledger import Limit
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.process import LanguageProcess

Told = tuple[float, tuple[tuple[int, float], ...]]  # a token's log-probability, and the likeliest tokens with theirs


@dataclass(eq=False)
class Going:
    """One call of `step`: rows that go on token by token until each has done its step, or was refused."""

    process: LanguageProcess
    states: Sequences
    keys: Keys
    limit: Limit
    until: Until
    rows: NDArray[np.int64] = field(init=False)  # those still going

    def __post_init__(self) -> None:
        n, self.rows = len(self.states), np.arange(len(self.states))
        self.tokens = list(self.states.tokens)
        self.logp, self.status, self.cut = np.zeros(n), np.zeros(n, np.int8), np.zeros(n, bool)
        self.errors: dict[int, str] = {}
        self.texts = list(self.states.texts())
        self.streams = [self.process.engine.tokenizer.stream() for _ in self.tokens]
        for stream, out in zip(self.streams, self.states.outputs(), strict=True):
            for token in out:
                stream.push(token)

    def run(self) -> Stepped:
        raise NotImplementedError

    def _take(
        self, rows: NDArray[np.int64], chosen: Sequence[int], logp: Sequence[float], told: Sequence[Told] | None
    ) -> NDArray[np.int64]:
        """Each of `rows` goes on by its token, which is shown; those that have more to do."""
        process = self.process
        self.logp[rows] += logp
        stepped = np.zeros(len(rows), bool)
        whole = process.unit == "completion" or self.until == "done" or not isinstance(self.until, str)
        for i, (row, token) in enumerate(zip(rows.tolist(), chosen, strict=True)):
            before, piece = self.texts[row], self.streams[row].push(token)
            self.tokens[row] += (token,)
            self.texts[row] = before + piece
            if told is not None:
                self.limit.show(int(self.keys[row]), Piece.of(piece, token, *told[i]), row)
            elif piece:
                self.limit.show(int(self.keys[row]), piece, row)
            if not whole:
                stop = process.stop
                stepped[i] = process.unit == "token" or before.count(stop) < self.texts[row].count(stop)
        starts = tuple(self.states.starts[row] for row in rows.tolist())
        now = Sequences(tuple(self.tokens[row] for row in rows.tolist()), starts, self.states.tokenizer)
        status, errors = process.judge(now)
        self.status[rows] = status
        self.errors |= {int(rows[i]): text for i, text in errors.items()}
        return rows[(status == Status.LIVE) & ~stepped]

    def _decided(self) -> bool:
        """Whether as many are done as were asked for."""
        return not isinstance(self.until, str) and (self.status == Status.DONE).sum() >= self.until

    def _reply(self) -> Stepped:
        states = self.states.written(tuple(self.tokens), self.process.name)
        zeros = np.zeros(len(states))
        return Stepped(states, self.status, self.logp, zeros, self.limit.used, self.cut, self.errors)
