"""Trajectories side by side, each at its own pace: where turns are written elsewhere, none waits for another's."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Semaphore
from typing import TYPE_CHECKING, Any

import numpy as np

from anystep.keys import Keys
from anystep.language.tools.dialogues import Dialogues
from anystep.language.tools.passing import Passing
from anystep.language.tools.steps import Steps
from anystep.ledger import FREE, Cost, Limit, Mask, Rows
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.tools.process import ToolProcess

AT_ONCE = 64  # trajectories that have a thread at once


def side_by_side(process: ToolProcess, states: Dialogues, keys: Keys, limit: Limit, until: Until) -> Stepped:
    """Every row to its end, or until k of them are done: then the others are refused, and come back live and cut. One
    that was done too late goes back to where it stood, so that no more than k are done, the first k in time."""
    n, k = len(states), until if isinstance(until, int) else len(states)
    lock, over, places = Lock(), Event(), Semaphore(process.at_once)
    first: list[int] = []

    def go(row: int) -> Stepped:
        index = np.array([row])
        own = _Own(limit.of(index), lock, over)
        reply = Steps(process, states.take(index), keys[index], own, "done", places).run()
        if reply.status[0] != Status.DONE:
            return reply
        with lock:
            if len(first) >= k:
                return _before(states.take(index))
            first.append(row)
            if len(first) == k:
                over.set()
        return reply

    with ThreadPoolExecutor(min(n, AT_ONCE), "anystep-trajectory") as pool:
        work = [pool.submit(go, row) for row in range(n)]
        try:
            replies = [each.result() for each in work]
        finally:
            over.set()  # after an error or an interrupt the others end at their next payment
    return _joined(replies, limit)


def _before(states: Dialogues) -> Stepped:
    """A row that has not moved."""
    one = np.zeros(1)
    return Stepped(states, np.zeros(1, np.int8), one, one, FREE, np.ones(1, bool))


def _joined(replies: Sequence[Stepped], limit: Limit) -> Stepped:
    def book(name: str) -> Any:
        return np.concatenate([getattr(reply, name) for reply in replies])

    first, *others = (reply.states for reply in replies)
    errors = {row: text for row, reply in enumerate(replies) for text in reply.errors.values()}
    joined = first.join(*others)
    return Stepped(joined, book("status"), book("logp"), book("logw"), limit.used, book("cut"), errors)


class _Own(Passing):
    """One row's part of a limit that several threads ask: one at a time, and in vain once the race is over."""

    def __init__(self, whole: Limit, lock: Lock, over: Event) -> None:
        super().__init__(whole)
        self.lock, self.over = lock, over

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        if self.over.is_set():
            return np.zeros(len(rows), dtype=bool)
        with self.lock:
            return self.whole.pay(rows, each, once)

    def charge(self, cost: Cost, row: int | None = None) -> None:
        with self.lock:
            self.whole.charge(cost, row)

    def of(self, rows: Rows | Sequence[int]) -> Limit:
        return _Own(self.whole.of(rows), self.lock, self.over)

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        with self.lock:
            self.whole.show(key, piece, row)
