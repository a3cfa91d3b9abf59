"""Whoever asks what a server can do waits for no request of a run, which may be waiting for the outcome."""

from __future__ import annotations

import threading

from anystep.language.endpoint import Endpoint
from anystep.testing.server import FakeServer, Offers


def test_probes_end_while_every_place_is_taken() -> None:
    with FakeServer(offers=Offers(owner="someone")) as server, Endpoint(server.url, concurrency=1) as endpoint:
        taken = endpoint.loop.call(endpoint.slots().acquire())
        found: list[bool | None] = []
        asking = threading.Thread(target=lambda: found.append(endpoint.probe().stream.there), daemon=True)
        asking.start()
        asking.join(30)
        assert taken and found == [True]
