"""One step of a language model's states, token by token, from one batched pass to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.keys import Keys
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.sampling import alternatives, draw
from anystep.language.states import Piece, Sequences
from anystep.ledger import Limit
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.process import LanguageProcess

Told = tuple[float, tuple[tuple[int, float], ...]]  # a token's log-probability, and the likeliest tokens with theirs


@dataclass
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
        rows, session = self.process.opened(self.states, self.limit, self.process.drawn(1))
        self.cut[np.setdiff1d(self.rows, rows)] = True
        if session is not None:
            place = {row: i for i, row in enumerate(rows.tolist())}
            with session:
                self.rows = rows
                while len(self.rows):
                    self._choose(session, np.array([place[row] for row in self.rows.tolist()]))
                    if len(self.rows):
                        self._feed(session, place)
        return self._reply()

    def _choose(self, session: Decoding, places: NDArray[np.int64]) -> None:
        """Draws one token for each row, and keeps those rows that have more to do."""
        process = self.process
        at = [len(self.tokens[row]) for row in self.rows.tolist()]
        u = lineage.uniforms(self.keys[self.rows], np.array(at, np.uint64))
        logits = session.logits(places)
        chosen, logp = draw(logits, u, process.temperature, process.top_p)
        told = None if process.logprobs is None else alternatives(logits, chosen, process.logprobs)
        self.rows = self._take(self.rows, chosen.tolist(), logp.tolist(), told)
        if self._decided():
            self.cut[self.rows] = True  # the race is over; were they asked again they would go on as they were
            self.rows = self.rows[:0]

    def _take(
        self, rows: NDArray[np.int64], chosen: Sequence[int], logp: Sequence[float], told: Sequence[Told] | None
    ) -> NDArray[np.int64]:
        """Each of `rows` goes on by its token, which is shown; those that have more to do."""
        process = self.process
        self.logp[rows] += logp
        stepped = np.zeros(len(rows), bool)
        for i, (row, token) in enumerate(zip(rows.tolist(), chosen, strict=True)):
            before, piece = self.texts[row], self.streams[row].push(token)
            self.tokens[row] += (token,)
            self.texts[row] = before + piece
            if told is not None:
                self.limit.show(int(self.keys[row]), Piece.of(piece, token, *told[i]), row)
            elif piece:
                self.limit.show(int(self.keys[row]), piece, row)
            whole = process.unit == "completion" or self.until == "done" or not isinstance(self.until, str)
            stop = process.unit == "token" or before.count(process.stop) < self.texts[row].count(process.stop)
            stepped[i] = stop and not whole
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
        states = Sequences(tuple(self.tokens), self.states.starts, self.states.tokenizer)
        zeros = np.zeros(len(states))
        return Stepped(states, self.status, self.logp, zeros, self.limit.used, self.cut, self.errors)

    def _feed(self, session: Decoding, place: Mapping[int, int]) -> None:
        """Pays for one more token a row, and feeds the last one to those that could pay."""
        each, once = self.process.engine.feed([len(self.tokens[row]) for row in self.rows.tolist()])
        granted = self.limit.pay(self.rows, each, once=once)
        self.cut[self.rows[~granted]] = True
        self.rows = self.rows[granted]
        places = [place[row] for row in self.rows.tolist()]
        session.append([self.tokens[row][-1] for row in self.rows.tolist()], places)
