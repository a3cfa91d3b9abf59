"""Requests that share an engine share its passes: whoever comes joins the batch at its next token.

A step that a limit cuts goes on later with the same key, and no answer changes. So the batch under way is cut when
someone comes who can join it, or when one of its members has all it wants; what is left goes on with who has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
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
class Errand:
    """Work of one request that shares nothing and is short: one pass. It waits for a token, and has its turn."""

    work: Callable[[], Stepped]
    kind: Hashable = field(default_factory=object)
    rows: Sequence[int] = ()
    patience: int = 1
    found: Stepped | None = None
    error: BaseException | None = None
    done: bool = False

    def perform(self) -> None:
        try:
            self.found = self.work()
        except BaseException as error:
            self.error = error
        self.done = True

    def reply(self) -> Stepped:
        if self.error is not None or self.found is None:
            raise self.error or RuntimeError("an errand that was not run has no reply")
        return self.found


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
    patience: int = QUANTUM
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
        self.done = len(self.rows) == 0 or self.limit.ledger.refused is not None or self.left() == 0

    def left(self) -> Until:
        """Until when the rows that go on do so: of a race, how many more must finish."""
        if isinstance(self.until, str):
            return self.until
        return max(0, self.until - int((self.status == Status.DONE).sum()))

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
        self.waiting: list[Asked | Errand] = []
        self._leading = False
        self._changed = threading.Condition()

    def perform(self, asked: Asked | Errand) -> Stepped:
        """Performs a step, together with those of other requests, or an errand in its turn."""
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
            tokens >= asked.patience or (asked.kind == kind and rows + len(asked.rows) <= MOST_ROWS)
            for asked in self.waiting
        )

    def _slice(self) -> None:
        """One turn: of the request that has waited longest and all that can join it, until they are cut or done."""
        first, *others = self._next()
        batch: list[Asked] = []
        if isinstance(first, Errand):
            first.perform()
        else:
            batch = [first, *(other for other in others if isinstance(other, Asked))]
            self._step(batch)
        with self._changed:
            self.waiting += [asked for asked in batch if not asked.done]
            self._changed.notify_all()

    def _step(self, batch: list[Asked]) -> None:
        """A joint step of `batch`, entered in each of them; an error is everyone's."""
        try:
            states = [asked.states.take(asked.rows) for asked in batch]
            keys = np.concatenate([asked.keys[asked.rows] for asked in batch])
            first = batch[0]
            reply = first.process.alone(states[0].join(*states[1:]), keys, Slice(self, batch), first.left())
            edges = np.cumsum([0, *map(len, states)]).tolist()
            for asked, low, high in zip(batch, edges, edges[1:], strict=False):
                part = split(reply, low, high, asked.limit.used)
                assert isinstance(part, Stepped)
                asked.take(part)
        except BaseException as error:
            for asked in batch:
                asked.error, asked.done = error, True

    def _next(self) -> list[Asked | Errand]:
        with self._changed:
            batch: list[Asked | Errand] = []
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
        if isinstance(limit, JointLimit):  # merged already, by whoever drives several runs at once
            return self.alone(states, keys, limit, until)
        kind: Hashable = (self.merges(), until) if isinstance(until, str) else object()  # a race is run by itself
        return self.desk.perform(Asked(self, states, keys, limit, until, kind))

    def expand(self, states: Sequences, k: int, keys: Keys, limit: Limit) -> Stepped:
        inner = super().expand
        return self.desk.perform(Errand(lambda: inner(states, k, keys, limit)))

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
