"""Answers that arrive, but are wrong or oddly written: figures, objects, JSON, lines and packets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from anystep.testing.server.faults import Fault
from anystep.testing.server.shapes import DONE, Object


@dataclass(frozen=True)
class Usage(Fault):
    """Wrong figures of usage: too large, too small, negative, missing, null, strings, or not even an object."""

    how: Literal["large", "small", "negative", "missing", "null", "strings", "list"]

    def usage(self, usage: Object | None) -> Any:
        if usage is None or self.how == "missing":
            return None
        counts = {name: n for name, n in usage.items() if isinstance(n, int)}
        match self.how:
            case "large":
                return {**usage, **{name: n + 10**12 for name, n in counts.items()}}
            case "small":
                return {**usage, **{name: min(n, 1) for name, n in counts.items()}}
            case "negative":
                return {**usage, **{name: -n - 1 for name, n in counts.items()}}
            case "strings":
                return {**usage, **{name: str(n) for name, n in counts.items()}}
            case "null":
                return {**usage, **dict.fromkeys(counts)}
        return list(counts.values())


@dataclass(frozen=True)
class Edited(Fault):
    """Objects that lack what a client expects: no choices, null content, or a finish_reason nobody knows."""

    how: Literal["no choices", "null content", "odd finish"]

    def edit(self, found: Object) -> Object:
        if self.how == "no choices":
            return {name: value for name, value in found.items() if name != "choices"}
        return {**found, "choices": [self._choice(dict(choice)) for choice in found["choices"]]}

    def _choice(self, choice: Object) -> Object:
        if self.how == "odd finish":
            ends = choice["finish_reason"] is not None
            return {**choice, "finish_reason": "solar_flare"} if ends else choice
        for name in ("delta", "message"):
            if name in choice:
                choice[name] = {**choice[name], "content": None}
        return {**choice, "text": None} if "text" in choice else choice


@dataclass(frozen=True)
class Dressed(Fault):
    """A stream that is right but oddly written. crlf: lines end in CRLF. comments: a keep-alive comment, a named event
    and an id before each. done: how often [DONE] is sent. padding: bytes of a field nobody asked for in each object.
    size: bytes of an HTTP chunk, so that characters and events are split. seconds: slept between these chunks."""

    crlf: bool = False
    comments: bool = False
    done: int = 1
    padding: int = 0
    size: int | None = None
    seconds: float = 0.0

    def edit(self, found: Object) -> Object:
        return {**found, "padding": "x" * self.padding} if self.padding else found

    def wire(self, data: bytes) -> bytes:
        data = data * self.done if data == DONE else data
        if self.comments and data.startswith(b"data: "):
            data = b": keep-alive\n\nevent: message\nid: 1\nretry: 3000\n" + data
        return data.replace(b"\n", b"\r\n") if self.crlf else data

    def packets(self, data: bytes) -> list[bytes]:
        size = self.size or len(data)
        return [data[i : i + size] for i in range(0, len(data), size)]

    async def pause(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Garbled(Fault):
    """JSON that ends in the middle: in every event of a stream, or in the answer's body."""

    def wire(self, data: bytes) -> bytes:
        if data == DONE:
            return data
        return data[: len(data) // 2] + (b"\n\n" if data.startswith(b"data: ") else b"")
