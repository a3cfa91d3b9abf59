"""What a server saw: requests, connections, what was in flight, and the tokens that were truly read and made."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Counts:
    """A snapshot. requests: by route, such as "/chat/completions". connections: opened so far. in_flight: requests
    being answered now, and peak the most there were at once. completed: answered to the last byte, errors on purpose
    included. cancelled: the client left before. broken: cut by this server (or its upstream) in the middle. prompt and
    generated: tokens read and made, those of cut requests included. cut: streams whose tokens were counted by their
    pieces, because their usage never came. unread: those among them whose prompt's tokens are not known.
    """

    requests: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    in_flight: int = 0
    peak: int = 0
    completed: int = 0
    cancelled: int = 0
    broken: int = 0
    prompt: int = 0
    generated: int = 0
    cut: int = 0
    unread: int = 0

    @property
    def calls(self) -> int:
        """Requests to all routes."""
        return sum(self.requests.values())


class Counting:
    """The books behind `Counts`, safe to read from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: Counter[str] = Counter()
        self._now = Counts()

    def snapshot(self) -> Counts:
        with self._changed:
            return replace(self._now, requests=dict(self._requests))

    def connected(self) -> None:
        self.add(connections=1)

    def began(self, route: str) -> Flight:
        """A request is in flight from here until its flight ends."""
        with self._changed:
            self._requests[route] += 1
            flying = self._now.in_flight + 1
            self._now = replace(self._now, in_flight=flying, peak=max(self._now.peak, flying))
            self._changed.notify_all()
        return Flight(self)

    def add(self, **figures: int) -> None:
        with self._changed:
            self._now = replace(self._now, **{name: getattr(self._now, name) + by for name, by in figures.items()})
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._now.in_flight == 0, timeout)

    def until(self, timeout: float, **figures: int) -> bool:
        """Waits until every figure is at least as large as given: `until(5, in_flight=3)`."""
        end = time.monotonic() + timeout
        with self._changed:
            return self._changed.wait_for(
                lambda: all(getattr(self._now, name) >= least for name, least in figures.items()),
                end - time.monotonic(),
            )


class Flight:
    """One request in flight, which ends once: whoever says first how it ended is believed."""

    def __init__(self, counting: Counting) -> None:
        self._counting, self._ended = counting, False

    def end(self, how: Literal["completed", "cancelled", "broken"]) -> None:
        if not self._ended:
            self._ended = True
            self._counting.add(in_flight=-1, **{how: 1})
