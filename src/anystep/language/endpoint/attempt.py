"""One request on the wire: it asks to be paid for, reads the reply as it comes, and says how it ended.

Everything here runs in the network's loop, and only puts events into the inbox of whoever waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import httpx

from anystep.language.endpoint.deltas import Delta, deltas, parsed, told
from anystep.language.endpoint.events import Events, TooLong
from anystep.language.endpoint.trouble import Trouble, asked_to_wait, refusal

if TYPE_CHECKING:
    from anystep.language.endpoint.server import Endpoint

MOST = 64 << 20  # bytes of a whole reply that are taken in
DRAIN = 0.5  # seconds that the end of a stream may take after its [DONE], for its connection to be used again
WRITING = 1.0  # seconds that a request which is cancelled while it is being written may take to leave
GRACE = 2.0  # seconds that usage may take after the end of all choices


@dataclass(frozen=True)
class Asks:
    """A place is free: the attempt waits to be paid for, and goes on at `attempt.grant(path, body)`."""

    attempt: Attempt


@dataclass(frozen=True)
class Said:
    attempt: Attempt
    deltas: list[Delta]


@dataclass(frozen=True)
class Closed:
    """The last event of an attempt; nothing of it is left on the wire. trouble: None where the reply is whole."""

    attempt: Attempt
    trouble: Trouble | None


Inbox = SimpleQueue[Asks | Said | Closed]


class Attempt:
    """One request, from waiting for its place to its last byte.

    sent: the request has left. answered: the server has begun to answer it with a 200, streamed: in pieces. whole: all
    choices have ended.
    """

    def __init__(self, server: Endpoint, inbox: Inbox, delay: float = 0.0, beside: bool = False) -> None:
        self.server, self.inbox, self.delay, self.beside = server, inbox, delay, beside
        self.path, self.body = "", dict[str, Any]()
        self.sent = self.answered = self.streamed = self.whole = False
        self.closed = threading.Event()
        self._granted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = self._begun = self._writing = False
        self._open = {0}

    def grant(self, path: str, body: dict[str, Any]) -> None:
        """Send this, which is paid for."""
        self.path, self.body, self._open = path, body, set(range(body.get("n") or 1))
        self.server.loop.soon(self._granted.set)

    def cancel(self) -> None:
        """End it, wherever it is; `Closed` follows once its connection is closed."""
        self.server.loop.soon(self._cancel)

    def _cancel(self) -> None:
        """At once; but a request that is just being written is let out whole, so that it is known to have been sent."""
        self._cancelled = True
        if self._task is None:
            return
        if self._writing:
            asyncio.get_running_loop().call_later(WRITING, self._task.cancel)
        else:
            self._task.cancel()

    async def _watch(self, name: str, info: Any) -> None:
        """Told by the client of each stage of a request."""
        stage = name.partition(".")[2]
        if stage == "send_request_headers.started":
            self._writing = True
        elif stage == "send_request_body.complete":
            self._writing, self.sent = False, True
            if self._cancelled and self._task is not None:
                self._task.cancel()

    async def run(self) -> None:
        self._task = asyncio.current_task()
        trouble: Trouble | None = Trouble("cancelled")
        try:
            if not self._cancelled:
                trouble = await self._tried()
        except asyncio.CancelledError:
            pass
        except Exception as error:  # a defect must not leave the caller waiting for ever
            trouble = Trouble(f"{type(error).__name__} while talking to {self.server.url}: {error}")
        finally:
            self.inbox.put(Closed(self, None if self.whole else trouble))
            self.closed.set()

    async def _tried(self) -> Trouble | None:
        try:
            if self.delay:
                await self.server.sleep(self.delay)
            async with contextlib.nullcontext() if self.beside else self.server.slots():
                self.inbox.put(Asks(self))
                await self._granted.wait()
                await self._exchanged()
            return None
        except Trouble as trouble:
            return trouble
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            return Trouble(f"cannot connect to {self.server.url}", again=True, said=_line(error))
        except httpx.TimeoutException:
            self.sent = True
            return Trouble(f"nothing came for {self.server.timeout:g} s (timeout={self.server.timeout:g})", again=True)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            return Trouble(f"{self.server.url} cannot be asked", said=_line(error))
        except httpx.TransportError as error:
            return Trouble("the connection broke", again=True, said=_line(error))
        except httpx.DecodingError as error:
            return Trouble("the reply cannot be decoded", said=_line(error))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TooLong) as error:
            return Trouble(type(error).__name__, said=_line(error))

    async def _exchanged(self) -> None:
        content = json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        request = self.server.client().stream(
            "POST", self.server.url + self.path, content=content, extensions={"trace": self._watch}
        )
        async with request as response:
            self.sent = True
            if response.status_code != 200:
                raise await self._refused(response)
            self.answered = True
            self.streamed = "event-stream" in response.headers.get("content-type", "")
            if self.streamed:
                await self._streamed(response)
            else:
                self._say(deltas(parsed(await _body(response))))
                self._ended("the reply has no end")

    async def _streamed(self, response: httpx.Response) -> None:
        events, packets = Events(), response.aiter_bytes()
        with contextlib.suppress(StopAsyncIteration):
            while True:
                with contextlib.suppress(TimeoutError):  # all is said: only usage may be missing
                    packet = await asyncio.wait_for(anext(packets), GRACE if self.whole else None)
                    if self._heard(events.feed(packet)):
                        continue
                    self._ended("the stream ended before its choices had")
                    await asyncio.wait_for(_drained(packets), DRAIN)
                return
        if self._heard(events.end()):
            self._ended("the stream ended without a finish_reason or [DONE]")

    def _heard(self, data: list[str]) -> bool:
        """Hands on the events of a packet; False after the last one there is."""
        found: list[Delta] = []
        try:
            for item in data:
                if item.strip() == "[DONE]":
                    if not (self._begun or _began(found)):
                        raise Trouble("the stream ended before it began", again=True)
                    if (self.body.get("n") or 1) == 1:
                        self._open.clear()
                    return False
                found += deltas(parsed(item))
        finally:
            self._say(found)
        return True

    def _say(self, found: list[Delta]) -> None:
        self._open -= {delta.choice for delta in found if delta.finish is not None}
        if found:
            self._begun |= _began(found)
            self.inbox.put(Said(self, found))
        self.whole = not self._open

    def _ended(self, otherwise: str) -> None:
        n = self.body.get("n") or 1
        if self._open and len(self._open) < n:
            raise Trouble(f"asked for n={n} choices, and {n - len(self._open)} came; use n=1")
        if self._open:
            raise Trouble(otherwise, again=True)

    async def _refused(self, response: httpx.Response) -> Trouble:
        """A status other than 200, with what the server says of it."""
        wait = asked_to_wait(response.headers.get("retry-after"), self.server.now())
        body = await _body(response)
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = _line(body[:200].decode("utf-8", "replace"))
        error = found.get("error", found) if isinstance(found, dict) else None
        named = error.get("param") if isinstance(error, dict) else None
        said = told(found) + self.server.unsent(response.status_code)
        return refusal(response.status_code, said, wait, named if isinstance(named, str) else None)


def _began(found: list[Delta]) -> bool:
    return any(delta.usage is None for delta in found)


async def _body(response: httpx.Response) -> bytes:
    found = bytearray()
    async for packet in response.aiter_bytes():
        found += packet
        if len(found) > MOST:
            raise TooLong(f"a reply of more than {MOST:,} bytes")
    return bytes(found)


async def _drained(packets: AsyncIterator[bytes]) -> None:
    left = MOST
    async for packet in packets:
        left -= len(packet)
        if left < 0:
            return


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
