"""What the tests of an endpoint's client share: a question, a server's script, and ways to watch and to wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anystep
from anystep import Budget
from anystep.language.endpoint import Endpoint
from anystep.testing.server import (
    FakeServer,
    Fault,
    Request,
    says,
    words,
)

QUESTION = "What is two and two?"
TEXT = "The answer is 4."
FOUR = says(TEXT)
READ, MADE = 3 + len(words(QUESTION)), len(words(TEXT)) + 1
N = 16
ROOT = Path(__file__).parents[1]


class Waits:
    """Takes the place of sleeping: remembers how long, and does not."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


class Shown:
    """Watches a run: counts the pieces that it shows."""

    def __init__(self) -> None:
        self._pieces, self._more = 0, threading.Condition()

    def __call__(self, key: int, piece: Any) -> None:
        with self._more:
            self._pieces += 1
            self._more.notify_all()

    def until(self, n: Callable[[], int], timeout: float = 60.0) -> bool:
        with self._more:
            return self._more.wait_for(lambda: self._pieces >= n(), timeout)


def solve(
    server: FakeServer, method: str = f"self_consistency(n={N})", budget: Budget | None = None, **options: Any
) -> Any:
    with Endpoint(server.url, sleep=Waits(), **options) as endpoint:
        return anystep.solve(QUESTION, model=endpoint, method=method, budget=budget)


def some(fault: Fault, times: int | None = None) -> Callable[[Request], Fault | None]:
    """`fault` for about a third of the samples, by their seeds: at every attempt, or at the first `times`."""
    met: dict[int, int] = {}

    def plan(request: Request) -> Fault | None:
        met[request.seed] = met.get(request.seed, 0) + 1
        return fault if hit(request) and (times is None or met[request.seed] <= times) else None

    return plan


def hit(request: Request) -> bool:
    return "seed" in request.body and request.seed % 3 == 0  # a probe of what the server can do has no seed


def hits(server: FakeServer) -> int:
    """How many samples met the fault."""
    return len({request.seed for request in server.requests if hit(request)})


def exact(answer: Any, server: FakeServer) -> None:
    """The bill is the server's own, and says so."""
    counts = server.counts
    assert not answer.cost.estimated
    assert (answer.cost.prompt + answer.cost.cached, answer.cost.generated) == (counts.prompt, counts.generated)
    assert answer.cost.calls == counts.calls - counts.requests.get("/models", 0)
