"""What a server or another thread does must not keep a run for ever."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import httpx
import pytest

from anystep import Run, drive, search
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.testing.server import FakeServer, Offers


def test_probes_end_while_every_place_is_taken() -> None:
    with FakeServer(offers=Offers(owner="someone")) as server, Endpoint(server.url, concurrency=1) as endpoint:
        taken = endpoint.loop.call(endpoint.slots().acquire())
        found: list[bool | None] = []
        asking = threading.Thread(target=lambda: found.append(endpoint.probe().stream.there), daemon=True)
        asking.start()
        asking.join(30)
        assert taken and found == [True]


class Endless(httpx.AsyncByteStream):
    """A reply that nobody ends, in as many choices as are wanted; `pieces` counts what was read of it."""

    def __init__(self, n: int) -> None:
        self.n, self.pieces = n, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.pieces < 100_000:
            choice = {"index": self.pieces % self.n, "delta": {"content": "a "}}
            self.pieces += 1
            await asyncio.sleep(0)
            yield f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


@pytest.mark.parametrize("n", [1, 3])
def test_a_server_that_does_not_heed_the_cap_is_left(n: int) -> None:
    sent: list[Endless] = []

    def reply(request: httpx.Request) -> httpx.Response:
        if b'"stream":true' not in request.content:
            return httpx.Response(404, json={"error": {"message": "there is nothing here"}})
        sent.append(Endless(n))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=sent[-1])

    with Endpoint("http://127.0.0.1:9/v1#m", api="chat", transport=httpx.MockTransport(reply)) as endpoint:
        run = Run(EndpointProcess(endpoint, "Which?", max_tokens=10, n=n), search.sample(n=n))
        (answer,) = drive(run)
    assert answer.finished == n and len(sent) == 1 and answer.cost.calls == 1
    assert 10 * n < answer.cost.generated <= sent[0].pieces < 100_000
