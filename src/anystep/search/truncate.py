"""Bound an endless process."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Limit
from anystep.process import Process, Status, Stepped, Until


@dataclass(frozen=True)
class Counted:
    """States of a truncated process with the steps each has taken."""

    states: Any
    steps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, index: NDArray[np.int64]) -> Self:
        return replace(self, states=self.states.take(index), steps=self.steps[index])

    def join(self, *others: Counted) -> Self:
        steps = np.concatenate([self.steps, *(o.steps for o in others)])
        return replace(self, states=self.states.join(*(o.states for o in others)), steps=steps)

    def contents(self) -> tuple[Hashable, ...]:
        """What tells states apart; by their place, so that none are equal, where the states themselves cannot tell."""
        inner = getattr(self.states, "contents", lambda: range(len(self)))()
        return tuple(zip(inner, self.steps.tolist(), strict=True))


class Truncated(Process):
    """The process `truncate` returns."""

    def __init__(self, process: Process, n: int) -> None:
        self.process, self.n = process, n
        self.name, self.horizon, self.branches = process.name, n, process.branches
        self.logp, self.concurrent = process.logp, process.concurrent

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        begun = self.process.start(keys, limit)
        return replace(begun, states=Counted(begun.states, np.zeros(len(keys), dtype=np.int64)))

    def step(self, states: Counted, keys: Keys, limit: Limit, until: Until) -> Stepped:
        inner, steps = states.states, states.steps.copy()
        n = len(steps)
        status, logp, logw = np.zeros(n, dtype=np.int8), np.zeros(n), np.zeros(n)
        cut, errors = np.zeros(n, dtype=bool), dict[int, str]()
        while len(rows := np.flatnonzero((status == Status.LIVE) & ~cut)):
            moved = self.process.step(inner.take(rows), keys[rows], limit.of(rows), "step")
            order = np.argsort(np.concatenate([np.setdiff1d(np.arange(n), rows), rows]), kind="stable")
            inner = inner.take(np.setdiff1d(np.arange(n), rows)).join(moved.states).take(order)
            cut[rows] = False if moved.cut is None else moved.cut
            steps[rows] += ~cut[rows]
            logp[rows], logw[rows] = logp[rows] + moved.logp, logw[rows] + moved.logw
            ended = (steps[rows] >= self.n) & (moved.status == Status.LIVE)
            status[rows] = np.where(ended, np.int8(Status.DONE), moved.status)
            errors.update({int(rows[i]): text for i, text in moved.errors.items()})
            if until == "step" or (isinstance(until, int) and (status == Status.DONE).sum() >= until):
                break
        if until != "step":  # the rest were stopped on their way
            cut |= status == Status.LIVE
        return Stepped(Counted(inner, steps), status, logp, logw, limit.used, cut, errors)

    def answers(self, states: Counted) -> tuple[Hashable, ...]:
        return self.process.answers(states.states)

    def texts(self, states: Counted) -> tuple[str, ...]:
        return self.process.texts(states.states)

    def forget(self) -> None:
        self.process.forget()

    def warm(self, states: Counted) -> None:
        self.process.warm(states.states)

    def settings(self) -> str:
        return f"at most {self.n} steps of {self.process.settings()}"

    def dump(self, states: Counted) -> bytes:
        return len(states).to_bytes(8, "big") + states.steps.astype(">i8").tobytes() + self.process.dump(states.states)

    def load(self, data: bytes) -> Counted:
        end = 8 + 8 * int.from_bytes(data[:8], "big")
        return Counted(self.process.load(data[end:]), np.frombuffer(data[8:end], dtype=">i8").astype(np.int64))


def truncate(process: Process, n: int) -> Process:
    """The process, its states done after n steps at the latest.

    Preserves the law of the first n steps exactly. A state that finishes earlier stays finished.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UsageError(f"truncate(process, n={n!r}): n is a number of steps, 1 or more; call truncate(process, 100).")
    return Truncated(process, n)
