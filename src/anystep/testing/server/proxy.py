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


class CountingProxy(Listener):
    """`with CountingProxy("http://127.0.0.1:8080/v1") as proxy: client(base_url=proxy.url)`

    True tokens come from the server's own usage: a stream is asked for it where the client did not ask (the chunk that
    answers is kept from the client). Of a stream that ends without usage the content deltas are counted, and `cut` and
    `unread` say so; its prompt is known where the same one was reported before. Events pass on one by one as they
    arrive. When the client leaves, the connection to the server is closed. requests: bodies, in the order of arrival.
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
        self._usage: dict[str, Any] | None = None
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
            choices = found.get("choices") or []
        except (ValueError, AttributeError):
            return True
        for choice in choices:
            delta = choice.get("delta") or {}
            made = (
                choice.get("text"),
                *(delta.get(k) for k in ("content", "reasoning_content", "reasoning", "tool_calls")),
            )
            self._said += any(made)
        if isinstance(found.get("usage"), dict):
            self._usage = found["usage"]
            return bool(choices) or not self.hides
        return True

    def close(self, whole: bool = False) -> None:
        """Write what passed into the books, once. whole: the answer came to its end."""
        if self._closed or self.prompt is None:
            return
        self._closed = True
        with suppress(ValueError, AttributeError):
            self._usage = json.loads(bytes(self._body)).get("usage") if self._body else self._usage
        figures = self._usage if isinstance(self._usage, dict) else {}
        read, made = (figures.get(name) for name in ("prompt_tokens", "completion_tokens"))
        if isinstance(read, int) and isinstance(made, int):
            self.prompts[self.prompt] = read
            self.counting.add(prompt=read, generated=made)
        elif self._streams or not whole:
            read = self.prompts.get(self.prompt, 0)
            self.counting.add(prompt=read, generated=self._said, cut=1, unread=int(self.prompt not in self.prompts))
