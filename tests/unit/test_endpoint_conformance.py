"""A served model keeps the laws of every process: the shipped conformance suite, against a server that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.testing import Work, process_checks
from anystep.testing.server import FakeServer, Offers

CASES = {
    "chat": {},
    "chat, steps": {"unit": "step", "stop": "α"},
    "chat, steps, an end, logprobs": {"unit": "step", "stop": "α", "end": ("ββ",), "logprobs": True},
    "chat, greedy": {"temperature": 0.0},
    "chat, capped": {"max_tokens": 2, "at_cap": "failed"},
    "completions": {"api": "completions"},
    "completions, steps, logprobs": {"api": "completions", "unit": "step", "stop": "α", "logprobs": True},
}


def requests_of(server: FakeServer) -> Callable[[], AbstractContextManager[Work]]:
    """Counts the completions that a server was asked for while the context is open."""

    @contextmanager
    def watching() -> Iterator[Work]:
        def asked() -> int:
            httpx.get(f"{server.url}/models", trust_env=False)  # what was sent before it has been read by then
            assert server.idle()
            return sum(n for route, n in server.counts.requests.items() if route.endswith("completions"))

        work, before = Work(), asked()
        yield work
        work.calls = asked() - before

    return watching


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(offers=Offers(stop_reason=False)) as server:
        yield server


@pytest.fixture(scope="module")
def endpoints(server: FakeServer) -> Iterator[dict[str, Endpoint]]:
    """An endpoint a route, each with the probes behind it that the checks would count."""
    with Endpoint(server.url, api="chat") as chat, Endpoint(server.url, api="completions") as completions:
        for endpoint in (chat, completions):
            endpoint.probe()
        yield {"chat": chat, "completions": completions}


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES)
def test_it_keeps_every_law(
    case: str, check: Callable[..., None], server: FakeServer, endpoints: dict[str, Endpoint]
) -> None:
    options = dict(CASES[case])
    endpoint = endpoints[options.pop("api", "chat")]
    check(EndpointProcess(endpoint, "Which letters?", **options), requests_of(server))
