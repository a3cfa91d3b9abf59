"""A transparent proxy that counts what truly passes between any client and any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from anystep.errors import UsageError
from anystep.testing.server import shapes
from anystep.testing.server.counts import Counting, Counts, Flight
from anystep.testing.server.http import LAST_CHUNK, Head, Left, Peer, chunk, head_of
from anystep.testing.server.listener import Listener

HOP = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "host", "accept-encoding"})
MADE = ("content", "reasoning_content", "reasoning", "tool_calls")


class CountingProxy(Listener):
    """`with CountingProxy("http://127.0.0.1:8080/v1") as proxy: client(base_url=proxy.url)`

    True tokens come from the server's own usage: a stream is asked for it where the client did not ask (the chunk
    that answers is kept from the client). Where a server reports each choice apart they are added up; llama.cpp's
    whole answers to n > 1 report the first choice alone, and nobody between can know the rest. Of a stream that ends
    without usage the content deltas are counted, and `cut` and `unread` say so; its prompt is known where the same
    one was reported before. Events pass on one by one as they arrive. When the client leaves, the connection to the
    server is closed. requests: bodies, in the order of arrival.
    """

    def __init__(self, upstream: str, host: str = "127.0.0.1", port: int = 0) -> None:
        parts = urlsplit(upstream)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f'CountingProxy({upstream!r}): give a URL, as in CountingProxy("http://127.0.0.1:8080/v1").'
            )
        super().__init__(host, port)
        self.secure, self.base = parts.scheme == "https", parts.path.rstrip("/").removesuffix("/v1")
        self.to, self.at = parts.hostname, parts.port or (443 if self.secure else 80)
        self.requests: list[dict[str, Any]] = []
        self._prompts: dict[bytes, int] = {}

    @property
    def counts(self) -> Counts:
        return self.counting.snapshot()

    async def serve(self, peer: Peer, head: Head, body: bytes) -> bool:
        flight = self.counting.began(head.first.split(" ")[1].partition("?")[0].removeprefix("/v1"))
        tally, body = self._tally(head, body)
        try:
            return bool(await self.while_there(peer, self._pass(peer, flight, tally, head, body)))
        finally:
            tally.close()
            flight.end("cancelled")  # where the client left before it had ended

    def _tally(self, head: Head, body: bytes) -> tuple[Tally, bytes]:
        """Who counts this exchange, and the body with usage asked for."""
        tally = Tally(self.counting, self._prompts)
        with suppress(ValueError):
            asked = json.loads(body)
            if isinstance(asked, dict) and head.first.split(" ")[1].endswith("/completions"):
                self.requests.append(asked)
                tally.prompt = hashlib.sha256(
                    json.dumps([asked.get("messages"), asked.get("prompt")]).encode()
                ).digest()
                options = asked.get("stream_options") or {}
                if asked.get("stream") and not options.get("include_usage"):
                    tally.hides = True
                    body = json.dumps({**asked, "stream_options": {**options, "include_usage": True}}).encode()
        return tally, body

    async def _pass(self, peer: Peer, flight: Flight, tally: Tally, head: Head, body: bytes) -> bool:
        try:
            server = Peer(*await asyncio.open_connection(self.to, self.at, ssl=self.secure or None))
        except OSError as error:
            flight.end("broken")
            data = json.dumps(shapes.error(f"no connection to {self.to}:{self.at}: {error}", "server_error")).encode()
            sized = {"content-type": "application/json", "content-length": str(len(data))}
            await peer.write(head_of(502, "Bad Gateway", sized) + data)
            return True
        try:
            await server.write(self._asked(head, body) + body)
            answer = await server.head()
            _, status, *words = [*answer.first.split(" ", 2), ""]
            kept = {name: value for name, value in answer.headers.items() if name not in HOP}
            await peer.write(head_of(int(status), words[0], {**kept, "transfer-encoding": "chunked"}))
            streams = "event-stream" in answer.headers.get("content-type", "")
            async for piece in server.pieces(answer, closes=True):
                for data in tally.events(piece) if streams else tally.whole(piece):
                    await peer.write(chunk(data))
        except Left:  # by either end; the client's leaving cancels this as well
            flight.end("broken")
            return False
        finally:
            server.close()
        tally.close(whole=True)
        flight.end("completed")
        await peer.write((chunk(tally.rest) if tally.rest else b"") + LAST_CHUNK)
        return True

    def _asked(self, head: Head, body: bytes) -> bytes:
        method, path, _ = head.first.split(" ")
        kept = {name: value for name, value in head.headers.items() if name not in HOP}
        kept |= {"host": f"{self.to}:{self.at}", "connection": "close", "content-length": str(len(body))}
        lines = [f"{method} {self.base}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in kept.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")


class Tally:
    """Counts one answer as it passes. hides: whether the usage chunk is kept from the client."""

    def __init__(self, counting: Counting, prompts: dict[bytes, int]) -> None:
        self.counting, self.prompts = counting, prompts
        self.prompt: bytes | None = None  # what was asked, for the length of a prompt whose usage does not come
        self.hides, self.rest = False, b""
        self._finals: list[Any] = []  # figures that came without a choice: one, or one a choice
        self._ends: dict[int, Any] = {}  # figures that came with the end of a choice
        self._latest: Any = None
        self._said, self._streams, self._closed = 0, False, False
        self._body = bytearray()

    def whole(self, piece: bytes) -> list[bytes]:
        self._body += piece
        return [piece]

    def events(self, piece: bytes) -> list[bytes]:
        """The events that are complete now and are for the client."""
        self._streams, self.rest = True, self.rest + piece
        found: list[bytes] = []
        while ends := [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := self.rest.find(mark)) >= 0]:
            event, self.rest = self.rest[: min(ends)], self.rest[min(ends) :]
            found += [event] if self._passes(event) else []
        return found

    def _passes(self, event: bytes) -> bool:
        data = b"".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
        try:
            found = json.loads(data)
            choices, usage = found.get("choices") or [], found.get("usage")
        except (ValueError, AttributeError):
            return True
        for choice in choices:
            delta = choice.get("delta") or {}
            made = (choice.get("text"), *(delta.get(name) for name in MADE))
            self._said += any(made)
            if usage and choice.get("finish_reason"):
                self._ends[choice.get("index", 0)] = usage
        if not usage:
            return True
        self._latest = usage
        self._finals += [] if choices else [usage]
        return bool(choices) or not self.hides

    def close(self, whole: bool = False) -> None:
        """Write what passed into the books, once. whole: the answer came to its end."""
        if self._closed or self.prompt is None:
            return
        self._closed = True
        with suppress(ValueError, AttributeError):
            self._finals += [json.loads(bytes(self._body)).get("usage")] if self._body else []
        told = self._finals or ([*self._ends.values()] if whole else []) or [self._latest]
        read = [n for n in (_figure(usage, "prompt_tokens") for usage in told) if n is not None]
        made = [n for n in (_figure(usage, "completion_tokens") for usage in told) if n is not None]
        if read:
            self.prompts[self.prompt] = max(read)
        elif not (self._streams or not whole):
            return  # an error, or a server that says nothing
        known = self.prompt in self.prompts
        lost = not (self._finals or (whole and read))
        prompt, generated = self.prompts.get(self.prompt, 0), max(sum(made), self._said)
        self.counting.add(prompt=prompt, generated=generated, cut=int(lost), unread=int(not known))


def _figure(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and found >= 0 else None
