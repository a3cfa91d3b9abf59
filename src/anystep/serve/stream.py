"""Server-sent events: the tokens of plain samples as they are drawn, a method's answer when it is decided."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from anystep.serve import record
from anystep.serve.faults import explained
from anystep.serve.held import Held
from anystep.serve.house import ClientLeft, House, unless_left
from anystep.serve.job import Job
from anystep.serve.replies import Reply

EVERY = 0.5  # seconds between two progress comments

DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n\n"


class Stream:
    """One streamed response, from its first chunk to [DONE]."""

    def __init__(self, job: Job, house: House, say: Callable[[str], None]) -> None:
        self.job, self.house, self.reply, self.say = job, house, Reply(job), say
        options = job.request.stream_options
        self.last = options is not None and options.include_usage
        self.running = options is not None and options.continuous_usage_stats
        keep = job.request.include_stop_str_in_output
        self.held = [Held(job.stops, keep) for _ in range(job.request.n)]
        self.unsent: dict[int, list[Any]] = {}  # tokens whose text is held back

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Chunks as they come. Closing this generator cancels the run and waits for it to stop."""
        queue: asyncio.Queue[tuple[int, Any] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def listen(choice: int, piece: Any) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (choice, piece))

        self.job.listener = listen
        work = asyncio.ensure_future(self.house.drive(self.job.run))
        work.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            if self.reply.chat:
                for choice in range(self.job.request.n):
                    yield self._sent(self.reply.opening(choice))
            async with aclosing(self._pieces(queue)) as pieces:
                async for piece in pieces:
                    yield piece
            work.result()
            for chunk in self._end():
                yield chunk
        except Exception as error:  # the status has been sent: what is left to say comes as an event
            yield event(record.billed(explained(error, self.say).body(), self.job))
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _pieces(self, queue: asyncio.Queue[tuple[int, Any] | None]) -> AsyncGenerator[bytes, None]:
        """Chunks of text until the run ends, with progress comments between them where they were asked for."""
        told = self.job.request.anystep.progress
        while True:
            try:
                heard = await asyncio.wait_for(queue.get(), EVERY if told else None)
            except TimeoutError:
                yield b": anystep " + json.dumps(record.progress(self.job.run)).encode() + b"\n\n"
                continue
            if heard is None:
                return
            choice, piece = heard
            text = self.held[choice].push(piece)
            tokens = self.unsent.setdefault(choice, [])
            if self.job.process.logprobs is not None:
                tokens.append(piece)
            if text:
                yield self._sent(self.reply.piece(choice, text, self.unsent.pop(choice)))

    def _end(self) -> list[bytes]:
        """What was held back, each choice's end, everything of ours with the last one, and the usage."""
        said = self.job.said()
        chunks = []
        for choice, each in enumerate(said):
            left, tokens = self.held[choice].rest(each.text or ""), self.unsent.pop(choice, [])
            if left or tokens:
                chunks.append(self._sent(self.reply.piece(choice, left, tokens)))
            chunk = self.reply.end(choice, each)
            if choice == len(said) - 1:
                chunk["anystep"] = record.anystep(self.job)
            chunks.append(self._sent(chunk))
        return [*chunks, *([event(self.reply.closing())] if self.last else []), DONE]

    def _sent(self, chunk: dict[str, Any]) -> bytes:
        if self.running:
            chunk["usage"] = record.usage(self.job)
        elif self.last:
            chunk["usage"] = None  # as OpenAI's are, before the one that holds it
        return event(chunk)


class Streamed(Response):
    """An event stream whose work stops when the client leaves. `ended` is told whether it did."""

    def __init__(self, stream: Stream, ended: Callable[[bool], None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self.stream, self.ended = stream, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = True
        try:
            await unless_left(receive, self._send(send))
            left = False
        except ClientLeft:
            pass
        finally:
            self.ended(left)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.stream.events()) as events:
            async for chunk in events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
