"""Make the calls: in threads, each with its time-out, watched by the run's limit.

A thread of Python cannot be stopped from outside. A call that is given up (its time ran out, or the run was cancelled
or ran out of budget) is no longer waited for: an async function is cancelled at its next `await`, a sync one goes on in
a daemon thread until it returns, and what it returns is dropped. Such threads never keep the interpreter from exiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from anystep.language.tools.tool import Tool

WATCH = 0.05  # seconds between looks at the limit while calls run


@dataclass(frozen=True)
class Job:
    """A call whose arguments have been checked. row: whose it is."""

    row: int
    tool: Tool
    arguments: dict[str, Any]
    world: str = "null"


@dataclass(frozen=True)
class Outcome:
    """What came of a call: the text that the model reads, the world after it, and whether it went well.

    defect: why the tool itself is wrong, which no model can mend.
    """

    text: str
    world: str
    well: bool = True
    defect: str = ""


def perform(
    jobs: Sequence[Job], pay: Callable[[Job], bool], goes_on: Callable[[Job], bool], at_once: int
) -> list[Outcome | None]:
    """Each job's outcome in order, None where it was refused before it began, or given up on its way.

    pay: asked once before a job begins. goes_on: asked every now and then while it runs.
    """
    outcomes: list[Outcome | None] = [None] * len(jobs)
    waiting, running = deque(enumerate(jobs)), dict[int, _Running]()
    ended: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                i, job = waiting.popleft()
                if pay(job):
                    running[i] = _Running(i, job, ended)
            quiet = False
            try:
                i, outcome = ended.get(timeout=WATCH if running else 0)
                if running.pop(i, None) is not None:  # else it was given up before
                    outcomes[i] = outcome
            except Empty:
                quiet = True
            for i, call in list(running.items()):
                late = call.late()
                if late or (quiet and not goes_on(call.job)):
                    outcomes[i] = _timed_out(call.job) if late else None
                    running.pop(i).give_up()
    finally:
        for call in running.values():  # an interrupt: nothing is waited for
            call.give_up()
    return outcomes


class _Running:
    """One call in its own thread."""

    def __init__(self, i: int, job: Job, ended: SimpleQueue[tuple[int, Outcome]]) -> None:
        self.job, self.began, self.given_up = job, time.monotonic(), False
        self.lock, self.cancel = threading.Lock(), lambda: None
        threading.Thread(target=lambda: ended.put((i, self._made())), name="anystep-tool", daemon=True).start()

    def late(self) -> bool:
        return self.job.tool.timeout is not None and time.monotonic() - self.began > self.job.tool.timeout

    def give_up(self) -> None:
        with self.lock:
            self.given_up = True
            self.cancel()

    def _made(self) -> Outcome:
        job = self.job
        try:
            first = (job.tool.read_world(job.world),) if job.tool.world else ()
        except ValidationError as error:
            return Outcome("", job.world, False, f"{job.tool.name} cannot read its world: {_line(error)}")
        try:
            value = job.tool.function(*first, **job.arguments)
            if inspect.isawaitable(value):
                value = asyncio.run(self._awaited(value))
            return told(job, value)
        except BaseException as error:  # whatever a tool raises is its result; a thread has nobody else to tell
            return Outcome(f"Error: {type(error).__name__}: {_line(error)}"[: job.tool.longest], job.world, False)

    async def _awaited(self, value: Any) -> Any:
        task, loop = asyncio.ensure_future(value), asyncio.get_running_loop()
        with self.lock:
            self.cancel = lambda: _cancelled(loop, task)
            if self.given_up:
                task.cancel()
        return await task


def _cancelled(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has just closed: the call has ended by itself
        loop.call_soon_threadsafe(task.cancel)


def told(job: Job, value: Any) -> Outcome:
    """The outcome of a call that returned `value`."""
    world = job.world
    if job.tool.world:
        if not (isinstance(value, tuple) and len(value) == 2):
            name = job.tool.name
            return Outcome("", world, False, f"{name} has world=True and must return two things: return result, world")
        value, after = value
        try:
            world = to_json(after).decode()
        except (PydanticSerializationError, ValueError) as error:
            return Outcome("", world, False, f"{job.tool.name} returned a world that is no JSON: {_line(error)}")
    return Outcome(shortened(as_text(value), job.tool.longest), world)


def as_text(value: Any) -> str:
    """A result as a model reads it: text as it is, else JSON."""
    if not isinstance(value, str):
        try:
            value = to_json(value, fallback=_plain).decode()
        except (PydanticSerializationError, ValueError):
            value = str(value)
    return str(value).encode("utf-8", "replace").decode()


def shortened(text: str, longest: int) -> str:
    """At most `longest` characters of a text, and how many were left out."""
    return text if len(text) <= longest else f"{text[:longest]}\n[{len(text) - longest:,} more characters left out]"


def _plain(value: Any) -> Any:
    """What JSON has no word for: an array as its list, anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _timed_out(job: Job) -> Outcome:
    return Outcome(f"Error: {job.tool.name} timed out after {job.tool.timeout:g} seconds.", job.world, False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
