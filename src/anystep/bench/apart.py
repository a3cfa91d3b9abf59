"""A step's rows one by one, each noted as it ends: so that a reply which was written down is never asked for again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.keys import Keys
from anystep.ledger import FREE, Cost, Limit
from anystep.process import Process, Status, Stepped, Until

ROWS_AT_ONCE = 64


class Apart(Process):
    """A concurrent process whose steps go row by row, in threads. `note(reply)` is called after each row but the last:
    the rows that have ended, and the others live and cut, as if the step had been cancelled there.

    Preserves everything: rows of a concurrent process do not depend on each other. Races (`until=k`) and processes
    that put several rows into one request (`n` above 1) go as one.
    """

    def __init__(self, process: Process, note: Callable[[Stepped], None]) -> None:
        self.process, self.note = process, note
        self.name, self.horizon, self.logp = process.name, process.horizon, process.logp
        self.branches, self.expands, self.concurrent = process.branches, process.expands, process.concurrent

    def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
        if len(states) < 2 or not isinstance(until, str) or getattr(self.process, "n", 1) > 1:
            return self.process.step(states, keys, limit, until)
        parts = [_Part(limit) for _ in range(len(states))]
        ended: dict[int, Stepped] = {}
        lock = threading.Lock()

        def one(row: int) -> None:
            reply = self.process.step(states.take(np.array([row])), keys[row : row + 1], parts[row], until)
            with lock:
                ended[row] = reply
                if len(ended) < len(states):
                    self.note(joined(states, ended))

        with ThreadPoolExecutor(min(len(states), ROWS_AT_ONCE), "anystep-row") as pool:
            for done in [pool.submit(one, row) for row in range(len(states))]:
                done.result()
        return joined(states, ended)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.process.start(keys, limit)

    def expand(self, states: Any, k: int, keys: Keys, limit: Limit) -> Stepped:
        return self.process.expand(states, k, keys, limit)

    def forced(self, states: Any) -> NDArray[np.bool_]:
        return self.process.forced(states)

    def fuse(self, parents: Any, keys: Keys, limit: Limit) -> Stepped:
        return self.process.fuse(parents, keys, limit)

    def answers(self, states: Any) -> tuple[Hashable, ...]:
        return self.process.answers(states)

    def texts(self, states: Any) -> tuple[str, ...]:
        return self.process.texts(states)

    def forget(self) -> None:
        self.process.forget()

    def warm(self, states: Any) -> None:
        self.process.warm(states)

    def settings(self) -> str:
        return self.process.settings()

    def dump(self, states: Any) -> bytes:
        return self.process.dump(states)

    def load(self, data: bytes) -> Any:
        return self.process.load(data)


class _Part(Limit):
    """One row's part of a call's limit: what it pays, the call has paid."""

    def __init__(self, whole: Limit) -> None:
        super().__init__(whole.ledger, whole.purpose)
        self.whole = whole

    def pay(self, rows: Any, each: Any = FREE, once: Cost = FREE) -> NDArray[np.bool_]:
        with self.ledger._lock:
            paid = self.whole.pay(rows, each, once)
            if paid.any():
                self._used += once + (each * len(rows) if isinstance(each, Cost) else sum(each, FREE))
            return paid

    def charge(self, cost: Cost, row: int | None = None) -> None:
        with self.ledger._lock:
            self.whole.charge(cost)
            self._used += cost

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        self.whole.show(key, piece)


def joined(states: Any, ended: Mapping[int, Stepped]) -> Stepped:
    """The replies of some rows as the reply of all: those that have not ended are live and cut, where they were."""
    n = len(states)
    rows = [ended[row].states if row in ended else states.take(np.array([row])) for row in range(n)]
    left = np.array([row not in ended for row in range(n)])
    blank = np.zeros(1)

    def column(name: str, rest: Any) -> Any:
        return np.concatenate([getattr(ended[row], name) if row in ended else rest for row in range(n)])

    cuts = [ended[row].cut if row in ended else None for row in range(n)]
    return Stepped(
        states=rows[0].join(*rows[1:]),
        status=column("status", np.array([Status.LIVE], np.int8)).astype(np.int8),
        logp=column("logp", blank),
        logw=column("logw", blank),
        cost=sum((ended[row].cost for row in sorted(ended)), FREE),
        cut=left | np.array([cut is not None and bool(cut[0]) for cut in cuts]),
        errors={row: text for row in ended for text in ended[row].errors.values()},
    )
