"""Requests that share an engine share its passes: whoever comes joins the batch at its next token.

A step that a limit cuts goes on later with the same key, and no answer changes. So the batch under way is cut when
someone comes who can join it, or when one of its members has all it wants; what is left goes on with who has come.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.drive import split
from anystep.keys import Keys
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import FREE, Cost, JointLimit, Limit, Mask, Rows
from anystep.process import Status, Stepped, Until

QUANTUM = 32  # tokens a row, after which a batch makes way for requests that cannot join it
MOST_ROWS = 512  # rows that go on together


@dataclass
class Asked:
    """One request's step, and how far it has come: `rows` are those that still go on."""

    process: Shared
    states: Sequences
    keys: Keys
    limit: Limit
    until: Until
    kind: Hashable
    rows: NDArray[np.int64] = field(init=False)
    error: BaseException | None = None
    done: bool = False

    def __post_init__(self) -> None:
        n = len(self.states)
        self.rows, self.status, self.cut, self.logp = np.arange(n), np.zeros(n, np.int8), np.zeros(n, bool), np.zeros(n)
        self.errors: dict[int, str] = {}

    def take(self, part: Stepped) -> None:
        """Enter what a slice did to the rows that were in it."""
        rows, n = self.rows, len(self.states)
        place = np.arange(n)
        place[rows] = n + np.arange(len(rows))
        self.states = self.states.join(part.states).take(place)
        self.logp[rows] += part.logp
        self.status[rows] = part.status
        self.cut[rows] = cut = np.zeros(len(rows), bool) if part.cut is None else part.cut
        self.errors |= {int(rows[row]): text for row, text in part.errors.items()}
        self.rows = rows[cut & (part.status == Status.LIVE)]
        self.done = len(self.rows) == 0 or self.limit.ledger.refused is not None

    def reply(self) -> Stepped:
        if self.error is not None:
            raise self.error
        zeros = np.zeros(len(self.states))
        return Stepped(self.states, self.status, self.logp, zeros, self.limit.used, self.cut, self.errors)


class Slice(JointLimit):
    """The limit of a batch that may be cut to let others in. Until its rows are opened it is not: that was paid for."""

    def __init__(self, desk: Desk, batch: Sequence[Asked]) -> None:
        keys = [asked.keys[asked.rows] for asked in batch]
        super().__init__([asked.limit for asked in batch], [len(k) for k in keys], keys)
        self.desk, self.kind, self.opening, self.tokens = desk, batch[0].kind, False, 0

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        if not self.opening and self._makes_way(np.asarray(rows, dtype=np.int64)):
            return np.zeros(len(rows), dtype=bool)
        self.tokens += 1
        return super().pay(rows, each, once)

    def _makes_way(self, rows: NDArray[np.int64]) -> bool:
        going = set(self.owner[rows].tolist())
        return bool(going) and (len(going) < len(self.limits) or self.desk.wanted(self.kind, len(rows), self.tokens))


class Desk:
    """Where the steps of one engine's requests meet. The thread of one of them leads: it performs batch after batch
    until its own step is done, and hands over."""

    def __init__(self) -> None:
        self.waiting: list[Asked] = []
        self._leading = False
        self._changed = threading.Condition()

    def step(self, asked: Asked) -> Stepped:
        """Performs a step, together with those of other requests."""
        with self._changed:
            self.waiting.append(asked)
            self._changed.wait_for(lambda: asked.done or not self._leading)
            if asked.done:
                return asked.reply()
            self._leading = True
        try:
            while not asked.done:
                self._slice()
        finally:
            with self._changed:
                self._leading = False
                self._changed.notify_all()
        return asked.reply()

    def wanted(self, kind: Hashable, rows: int, tokens: int) -> bool:
        """Whether a batch should be cut now, for someone who can join it, or who cannot and has waited long enough."""
        return any(
            tokens >= QUANTUM or (asked.kind == kind and rows + len(asked.rows) <= MOST_ROWS) for asked in self.waiting
        )

    def _slice(self) -> None:
        """One batch: the request that has waited longest, with all that can join it, until it is cut or done."""
        batch = self._next()
        try:
            states = [asked.states.take(asked.rows) for asked in batch]
            keys = np.concatenate([asked.keys[asked.rows] for asked in batch])
            first = batch[0].process
            reply = first.alone(states[0].join(*states[1:]), keys, Slice(self, batch), batch[0].until)
            edges = np.cumsum([0, *map(len, states)]).tolist()
            for asked, low, high in zip(batch, edges, edges[1:], strict=False):
                part = split(reply, low, high, asked.limit.used)
                assert isinstance(part, Stepped)
                asked.take(part)
        except BaseException as error:
            for asked in batch:
                asked.error, asked.done = error, True
        with self._changed:
            self.waiting += [asked for asked in batch if not asked.done]
            self._changed.notify_all()

    def _next(self) -> list[Asked]:
        with self._changed:
            batch: list[Asked] = []
            rows = 0
            for asked in list(self.waiting):
                if not batch or (asked.kind == batch[0].kind and rows + len(asked.rows) <= MOST_ROWS):
                    batch.append(asked)
                    rows += len(asked.rows)
                    self.waiting.remove(asked)
            return batch


class Shared(LanguageProcess):
    """A language process whose steps share passes with those of other requests at the same desk."""

    def __init__(self, desk: Desk, engine: Any, prompt: str, **options: Any) -> None:
        super().__init__(engine, prompt, **options)
        self.desk = desk

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        if not isinstance(until, str) or isinstance(limit, JointLimit):  # a race has its own end
            return self.alone(states, keys, limit, until)
        return self.desk.step(Asked(self, states, keys, limit, until, (self.merges(), until)))

    def alone(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        """The step itself, in one batch."""
        return super().step(states, keys, limit, until)

    def opened(self, states: Sequences, limit: Limit, each: Cost) -> Any:
        if not isinstance(limit, Slice):
            return super().opened(states, limit, each)
        limit.opening = True
        try:
            return super().opened(states, limit, each)
        finally:
            limit.opening = False
