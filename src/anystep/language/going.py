"""One step of a language model's states, token by token: what is drawn, and when a row has done its step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anystep.keys import Keys
from anystep.language.states import Piece, Sequences
from anystep.ledger import FREE, Cost, Limit
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.process import LanguageProcess


@dataclass(eq=False)
class Going:
    """One call of `step`: rows that go on until each has done its step, or was refused.

    A row is `waiting` to be opened, `coming` while what it lacks is computed, or in a session, where `place[row]` is its
    number; a session that has no room sends it back to wait. Its last token is fed when the next one is wanted.
    """

    process: LanguageProcess
    states: Sequences
    keys: Keys
    limit: Limit
    until: Until

    def __post_init__(self) -> None:
        n = len(self.states)
        self.waiting, self.coming, self.place = list(range(n)), set[int](), dict[int, int]()
        self.tokens = list(self.states.tokens)
        self.status, self.cut, self.owes = np.zeros(n, np.int8), np.zeros(n, bool), np.ones(n, bool)
        self.drawn: list[list[float]] = [[] for _ in range(n)]  # log-probabilities of this call's tokens
        self.errors: dict[int, str] = {}
        self.texts = list(self.states.texts())
        self.streams = [self.process.engine.tokenizer.stream() for _ in self.tokens]
        for stream, out in zip(self.streams, self.states.outputs(), strict=True):
            for token in out:
                stream.push(token)

    @property
    def done(self) -> bool:
        return not (self.waiting or self.coming or self.place)

    def owed(self, rows: Sequence[int]) -> list[Cost]:
        """What each row's next token costs beyond what it lacks, where it has not been paid for."""
        drawn = self.process.drawn(1)
        return [drawn if self.owes[row] else FREE for row in rows]

    def pay(self, rows: Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> list[int]:
        """Those of `rows` that could pay; the others are cut."""
        granted = self.limit.pay(np.array(rows, np.int64), each, once=once)
        self.refuse([row for row, yes in zip(rows, granted.tolist(), strict=True) if not yes])
        return [row for row, yes in zip(rows, granted.tolist(), strict=True) if yes]

    def refuse(self, rows: Sequence[int]) -> None:
        """These stay as they are; were they asked again they would go on."""
        self.cut[list(rows)] = True
        self.waiting = [row for row in self.waiting if not self.cut[row]]

    def take(
        self,
        rows: Sequence[int],
        tokens: Sequence[int],
        logp: Sequence[float],
        told: Sequence[tuple[float, tuple[tuple[int, float], ...]]] | None,
    ) -> list[int]:
        """Enters a token drawn for each of `rows`; those rows that have done their step."""
        process, stepped = self.process, []
        whole = process.unit == "completion" or self.until == "done" or not isinstance(self.until, str)
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            before, piece = self.texts[row], self.streams[row].push(token)
            self.tokens[row] += (token,)
            self.texts[row] = before + piece
            self.drawn[row].append(logp[i])
            self.owes[row] = True
            if told is not None:
                self.limit.show(int(self.keys[row]), Piece.of(piece, token, *told[i]), row)
            elif piece:
                self.limit.show(int(self.keys[row]), piece, row)
            stop = process.unit == "token" or before.count(process.stop) < self.texts[row].count(process.stop)
            stepped.append(stop and not whole)
        now = Sequences(
            tuple(self.tokens[row] for row in rows),
            tuple(self.states.starts[row] for row in rows),
            self.states.tokenizer,
        )
        status, errors = process.judge(now)
        self.status[list(rows)] = status
        self.errors |= {rows[i]: text for i, text in errors.items()}
        live = (status == Status.LIVE).tolist()
        return [row for row, going, stop in zip(rows, live, stepped, strict=True) if stop or not going]

    def beaten(self) -> list[int]:
        """Of a race, the rows in a session that need not go on: enough have finished in as few tokens."""
        bar = self._bar()
        over = [row for row in self.place if len(self.drawn[row]) >= bar and self.status[row] == Status.LIVE]
        self.cut[over] = True  # were they asked again they would go on as they were
        return over

    def _bar(self) -> float:
        """Of a race that has been decided, after how many tokens; rows that wait may still make it fewer."""
        if isinstance(self.until, str):
            return np.inf
        done = sorted(len(self.drawn[row]) for row in np.flatnonzero(self.status == Status.DONE).tolist())
        return np.inf if len(done) < self.until else done[self.until - 1]

    def reply(self) -> Stepped:
        """Of a race as if all rows had gone on side by side: one that ran further than it was decided is taken back."""
        bar = self._bar()
        for row in range(len(self.states)):
            if len(self.drawn[row]) > bar:
                self.tokens[row] = self.tokens[row][: int(bar) - len(self.drawn[row])]
                self.drawn[row], self.status[row], self.cut[row] = self.drawn[row][: int(bar)], Status.LIVE, True
                self.errors.pop(row, None)
        states = Sequences(tuple(self.tokens), self.states.starts, self.states.tokenizer)
        logp = np.array([sum(drawn) for drawn in self.drawn], np.float64)
        return Stepped(states, self.status, logp, np.zeros(len(states)), self.limit.used, self.cut, self.errors)
