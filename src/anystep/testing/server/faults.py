"""What goes wrong between a client and a server? Each fault is a value that edits one exchange; plan them by request.

    FakeServer(faults={0: status(500), 3: Hang(after=2)})                       by the order of arrival
    FakeServer(faults=lambda request: status(503) if request.stream else None)  by what is asked
    FakeServer(faults=Usage("missing"))                                         always

`after=None` is before the response's head; `after=k` is when k tokens have been made.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Literal, Protocol

from anystep.testing.server.script import Request
from anystep.testing.server.shapes import Object, error, event

Way = Literal["reset", "close", "end", "short"]


class Cut(Exception):
    """This server ends the exchange here. reset: by an RST. close: by a FIN, in the middle of the HTTP body. short: in
    the middle of a chunk that announced more. end: the HTTP body ends well, but the stream has neither [DONE] nor a
    finish_reason."""

    def __init__(self, how: Way) -> None:
        super().__init__(how)
        self.how = how


class Exchanging(Protocol):
    """What a fault may do with the exchange under way."""

    async def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None: ...
    async def send(self, data: bytes) -> None: ...


class Fault:
    """No fault: each hook does nothing until it is overridden."""

    async def before(self, exchange: Exchanging) -> bool:
        """Before the response's head, and before any token is paid for; True where it has answered by itself."""
        return False

    async def at(self, exchange: Exchanging, made: int) -> None:
        """When `made` tokens have been made, before the next one."""

    def usage(self, usage: Object | None) -> Any:
        return usage

    def edit(self, found: Object) -> Object:
        """Each object that is sent: a stream's chunk, or the answer."""
        return found

    def wire(self, data: bytes) -> bytes:
        """The bytes of an event, or of a whole body."""
        return data

    def packets(self, data: bytes) -> list[bytes]:
        """The HTTP chunks in which bytes are sent."""
        return [data]

    async def pause(self) -> None:
        """Between packets."""


Plan = Fault | Mapping[int, Fault] | Callable[[Request], Fault | None] | None


def planned(plan: Plan, request: Request) -> Fault:
    if plan is None:
        return Fault()
    if isinstance(plan, Fault):
        return plan
    return (plan.get(request.number) if isinstance(plan, Mapping) else plan(request)) or Fault()


@dataclass(frozen=True)
class Reply(Fault):
    """Answers by itself: this status, body and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    async def before(self, exchange: Exchanging) -> bool:
        await exchange.reply(self.status, self.body, dict(self.headers))
        return True


def status(code: int, message: str = "something went wrong", **headers: str) -> Reply:
    """An error of OpenAI's shape. Header names are written with underscores: `retry_after="1"`."""
    kind = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    body = json.dumps(error(message, kind.get(code, "server_error"), None, code)).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(code, body, {"content-type": "application/json", **named})


def busy(retry_after: float | datetime | None = None) -> Reply:
    """429, with a Retry-After in seconds or as an HTTP date (give an aware datetime in UTC), or without."""
    if retry_after is None:
        return status(429, "too many requests")
    text = format_datetime(retry_after, usegmt=True) if isinstance(retry_after, datetime) else f"{retry_after:g}"
    return status(429, "too many requests", retry_after=text)


def too_long() -> Reply:
    """400, as OpenAI says that a prompt does not fit."""
    body = error("This model's maximum context length is 16 tokens.", "invalid_request_error", "messages")
    body["error"]["code"] = "context_length_exceeded"
    return Reply(400, json.dumps(body).encode(), {"content-type": "application/json"})


def page(code: int = 200) -> Reply:
    """An HTML page, as a misconfigured gateway sends one."""
    return Reply(code, b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>", {"content-type": "text/html"})


def empty(code: int = 200) -> Reply:
    """A body of no bytes."""
    return Reply(code, b"", {"content-type": "application/json"})


@dataclass(frozen=True)
class At(Fault):
    """Something that happens once, before the head (after=None) or when `after` tokens have been made."""

    after: int | None = None

    async def before(self, exchange: Exchanging) -> bool:
        if self.after is None:
            await self.happen(exchange)
        return False

    async def at(self, exchange: Exchanging, made: int) -> None:
        if made == self.after:
            await self.happen(exchange)

    async def happen(self, exchange: Exchanging) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Hang(At):
    """Sends nothing more, and keeps the connection open until the client leaves or the server closes."""

    async def happen(self, exchange: Exchanging) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Break(At):
    """Ends the exchange; see `Cut` for the ways. Before the head, only "reset" and "close" differ."""

    how: Way = "reset"

    async def happen(self, exchange: Exchanging) -> None:
        raise Cut(self.how)


@dataclass(frozen=True)
class Inject(At):
    """Puts bytes of one's own between the events of a stream; a whole answer is left alone. Then it goes on, or ends
    as `then` says."""

    data: bytes = b'data: {"choices": [{"index": 0, "delta": {"content": "lo\n\n'
    then: Way | None = None

    async def happen(self, exchange: Exchanging) -> None:
        await exchange.send(self.data)
        if self.then is not None:
            raise Cut(self.then)


def error_event(after: int = 1, message: str = "the engine died") -> Inject:
    """An error object in the middle of a stream, which then ends without [DONE]."""
    return Inject(after, event(error(message, "server_error", None, 500)), "end")


class Gate(Fault):
    """Holds every exchange it is given at `after` tokens (None: before the head) until `release()`: no test sleeps."""

    def __init__(self, after: int | None = 0) -> None:
        self.after = after
        self._changed, self._held, self._open = threading.Condition(), 0, False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def before(self, exchange: Exchanging) -> bool:
        if self.after is None:
            await self._hold()
        return False

    async def at(self, exchange: Exchanging, made: int) -> None:
        if made == self.after:
            await self._hold()

    async def _hold(self) -> None:
        released = asyncio.Event()
        with self._changed:
            self._held += 1
            if not self._open:
                self._waiting.append((asyncio.get_running_loop(), released))
            else:
                released.set()
            self._changed.notify_all()
        await released.wait()

    def wait(self, n: int = 1, timeout: float = 10.0) -> bool:
        """Until n exchanges have come this far, those that left again included."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held >= n, timeout)

    def release(self) -> None:
        """Let all go on, those that come later too."""
        with self._changed:
            self._open = True
            waiting, self._waiting = self._waiting, []
        for loop, released in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(released.set)
