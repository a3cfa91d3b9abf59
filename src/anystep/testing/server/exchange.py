"""One completion, from the request that was read to the last byte that answers it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from anystep.testing.server import shapes
from anystep.testing.server.counts import Counting, Flight
from anystep.testing.server.faults import Cut, Fault
from anystep.testing.server.http import LAST_CHUNK, Peer, chunk, head_of
from anystep.testing.server.offers import Offers
from anystep.testing.server.script import Request
from anystep.testing.server.shapes import Choice, Object

JSON = {"content-type": "application/json"}
STREAM = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}


@dataclass
class Exchange:
    """Makes the choices token by token, counts each, and sends them as the fault at work would have it.

    The books say "completed" before the last byte goes out, so whoever has the answer finds it counted.
    """

    peer: Peer
    counting: Counting
    flight: Flight
    request: Request
    model: str
    choices: list[Choice]
    prompt: int
    cached: int
    usage: bool
    continuous: bool
    offers: Offers
    fault: Fault = field(default_factory=Fault)
    _made: list[int] = field(default_factory=list)
    _begun: bool = False

    async def run(self) -> bool:
        """Whether the connection can take another request."""
        self._made = [0] * len(self.choices)
        try:
            if await self.fault.before(self):
                return True
            self.counting.add(prompt=self.prompt)
            await (self._stream() if self.request.stream else self._answer())
            return True
        except Cut as cut:
            return await self._cut(cut)

    async def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """The whole answer at once."""
        self.flight.end("completed")
        sized = {"content-length": str(len(body)), **headers}
        await self._packets(head_of(status, reason(status), sized) + body, chunked=False)

    async def send(self, data: bytes) -> None:
        """Bytes into a stream; a whole answer has no place for them."""
        if self._begun:
            await self._packets(data)

    async def _packets(self, data: bytes, chunked: bool = True) -> None:
        for packet in self.fault.packets(data):
            await self.peer.write(chunk(packet) if chunked else packet)
            await self.fault.pause()

    async def _make(self) -> Any:
        """Each token of each choice in turn, paid for; the choices of a request grow side by side."""
        longest = max(len(choice.tokens) for choice in self.choices)
        for t in range(longest):
            for index, choice in enumerate(self.choices):
                if t < len(choice.tokens):
                    await self.fault.at(self, sum(self._made))
                    self.counting.add(generated=1)
                    self._made[index] += 1
                    await asyncio.sleep(0)  # a client that left is noticed between tokens
                    yield index, choice.tokens[t]
        await self.fault.at(self, sum(self._made))

    def _usage(self, only: int | None = None) -> Object | None:
        """The figures of all choices, or of one; of the first alone where a server knows no better."""
        which = range(len(self.choices)) if only is None else (only,)
        made = sum(self._made[i] for i in which)
        reasoning = sum(min(self._made[i], self.choices[i].reasoning) for i in which)
        found: Object | None = self.fault.usage(shapes.usage(self.prompt, self.cached, made, reasoning))
        return found

    async def _answer(self) -> None:
        async for _ in self._make():
            pass
        choices = shapes.whole(self.request, self.choices, self.offers)
        usage = self._usage(0 if self.offers.each else None)
        found = self.fault.edit(shapes.frame(self.request, self.model, choices, usage))
        await self.reply(200, self.fault.wire(json.dumps(found).encode()), JSON)

    async def _stream(self) -> None:
        self._begun = True
        await self.peer.write(head_of(200, "OK", STREAM))
        for opening in shapes.opening(self.request, len(self.choices), self.offers):
            await self._event([opening], self._so_far(opening["index"]))
        offsets = [0] * len(self.choices)
        async for index, token in self._make():
            part = shapes.part(self.request, token, index, offsets[index], self.offers)
            await self._event([part], self._so_far(index))
            offsets[index] += len(token.text)
            if self._made[index] == len(self.choices[index].tokens):
                await self._close(index)
        for index, choice in enumerate(self.choices):
            if not choice.tokens:
                await self._close(index)
        if self.usage and not self.offers.each:
            await self._event([], self._usage())
        self.flight.end("completed")
        await self.send(self.fault.wire(shapes.DONE))
        await self.peer.write(LAST_CHUNK)

    def _so_far(self, index: int) -> Object | None:
        """What rides on a choice's chunk where figures are continuous: those of that choice, as vLLM gives them."""
        return self._usage(index) if self.continuous else None

    async def _close(self, index: int) -> None:
        """The chunk that says why a choice ended, with or before its own figures where the server gives them so."""
        closing = shapes.closing(self.request, self.choices[index], index, self.offers)
        usage = self._usage(index) if self.usage and self.offers.each else None
        await self._event([closing], self._so_far(index) if self.request.chat or usage is None else usage)
        if usage is not None and self.request.chat:
            await self._event([], usage)

    async def _event(self, choices: list[Object], usage: Object | None = None) -> None:
        found = shapes.frame(self.request, self.model, choices, usage)
        await self.send(self.fault.wire(shapes.event(self.fault.edit(found))))

    async def _cut(self, cut: Cut) -> bool:
        """End as the cut says; a whole answer that was not begun is cut in the middle of its body."""
        self.flight.end("broken")
        if cut.how == "end" and self._begun:
            await self.peer.write(LAST_CHUNK)
            return True
        if cut.how in ("end", "short"):
            half = b'ff\r\ndata: {"choices": ['
            await self.peer.write(
                half if self._begun else head_of(200, "OK", {**JSON, "content-length": "400"}) + b'{"ch'
            )
        if cut.how == "reset":
            self.peer.reset()
        return False


def reason(status: int) -> str:
    return HTTPStatus(status).phrase
