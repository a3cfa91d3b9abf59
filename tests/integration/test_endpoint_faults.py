"""An endpoint's client in a hostile world: failures are typed and cost no other sample, bills are true, and nothing is
left running. All that is asserted was counted at the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import anystep
from anystep import Budget
from anystep.answer import AllFailed
from anystep.language.endpoint import Endpoint
from anystep.testing.server import (
    Break,
    Edited,
    FakeServer,
    Fault,
    Garbled,
    Hang,
    Inject,
    Request,
    busy,
    empty,
    error_event,
    page,
    says,
    status,
    too_long,
)

QUESTION = "What is two and two?"
FOUR = says("The answer is 4.")
N = 16


class Waits:
    """Takes the place of sleeping: remembers how long, and does not."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


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
    return request.seed % 3 == 0


def hits(server: FakeServer) -> int:
    """How many samples met the fault."""
    return len({request.seed for request in server.requests if hit(request)})


LOST = {
    "500": status(500),
    "502 as a page": page(502),
    "503": status(503),
    "429": busy(),
    "429 with seconds": busy(1),
    "429 with a date": busy(datetime(2020, 1, 1, tzinfo=UTC)),
    "401": status(401),
    "404": status(404),
    "context": too_long(),
    "page": page(),
    "empty": empty(),
    "garbled": Garbled(),
    "hang": Hang(),
    "hang after 2": Hang(after=2),
    "reset": Break(None, "reset"),
    "close": Break(None, "close"),
    "reset after head": Break(0, "reset"),
    "reset after 2": Break(2, "reset"),
    "close after 2": Break(2, "close"),
    "short chunk": Break(2, "short"),
    "half-closed": Break(2, "end"),
    "error event": error_event(2),
    "bad event": Inject(1),
    "no choices": Edited("no choices"),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_a_sample_that_is_lost_is_a_failed_state_and_the_rest_goes_on(fault: Fault) -> None:
    with FakeServer(FOUR, faults=some(fault)) as server:
        answer = solve(server, timeout=0.3, retries=1)
        lost = hits(server)
        assert 0 < lost < N
        assert (answer.started, answer.finished, answer.failed) == (N, N - lost, lost)
        assert answer.note == f"{lost} of {N} samples failed."
        assert answer.value == "The answer is 4." and answer.support == 1.0
        assert len(answer.errors) == lost and all(line and "\n" not in line for line in answer.errors)
        assert server.idle() and server.counts.in_flight == 0


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_all_lost_is_said_with_the_first_reason(fault: Fault) -> None:
    with FakeServer(FOUR, faults=fault) as server:
        with pytest.raises(AllFailed, match="All 4 (states|samples) failed"):
            solve(server, "sample(n=4)", timeout=0.2, retries=0)
        assert server.idle()
