"""The runs under way: how many at once, and how all of them end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from anystep.answer import AllFailed
from anystep.drive import adrive
from anystep.run import Run
from anystep.serve.refusal import Refused

RUNNING, WAITING = 64, 256  # requests at work, each with a thread, and requests that wait for a place

T = TypeVar("T")


class House:
    """Drives runs, each in a task of its own; those that are not admitted yet wait their turn."""

    def __init__(self) -> None:
        self.runs: set[Run] = set()
        self.closing = False
        self._places = asyncio.Semaphore(RUNNING)

    async def drive(self, run: Run) -> None:
        """Drive `run` to its end. Cancelling this task stops the work at its next payment, and waits for that.

        A run whose states all failed has ended too: it has no answer, and its error says why.
        """
        if self.closing:
            raise shutting_down()
        if len(self.runs) >= RUNNING + WAITING:
            raise Refused(
                "too many requests are waiting; try again later.",
                status=429,
                code="rate_limit_exceeded",
                kind="rate_limit_error",
            )
        self.runs.add(run)
        try:
            async with self._places:
                await adrive(run)
        except AllFailed:
            pass
        finally:
            self.runs.discard(run)
        if self.closing and run.ledger.cancelled:
            raise shutting_down()

    def close(self) -> None:
        """Cancel every run at its next unit of work, and take no new ones."""
        self.closing = True
        for run in self.runs:
            run.cancel()


def shutting_down() -> Refused:
    return Refused("the server is shutting down.", status=503, code="shutting_down")


class ClientLeft(Exception):
    """Nobody waits for this response any more."""


async def unless_left(receive: Callable[[], Awaitable[Any]], work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled, and waited for, when the client disconnects; ClientLeft then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
