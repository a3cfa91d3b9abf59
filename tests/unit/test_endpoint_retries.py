"""A request is asked again where that may help, as late as the server wants, and no oftener."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from anystep import Budget, Run, drive, search
from anystep.answer import AllFailed, Answer
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.language.endpoint.trouble import asked_to_wait, exhausted, pause, refusal
from anystep.testing.server import (
    Break,
    FakeServer,
    Garbled,
    Offers,
    Plan,
    Request,
    Toy,
    busy,
    empty,
    error_event,
    page,
    status,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Waits(list[float]):
    """Takes the place of the clock: every wait is noted and over at once."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def ask(server: FakeServer, n: int = 1, waits: Waits | None = None, **options: object) -> Answer:
    with Endpoint(
        server.url, api="chat", sleep=Waits() if waits is None else waits, now=lambda: NOW, **options
    ) as endpoint:  # type: ignore[arg-type]
        run = Run(EndpointProcess(endpoint, "Which letters?"), search.self_consistency(n=n), Budget(calls=1000), seed=3)
        try:
            return drive(run)[0]
        except AllFailed:
            return run.result()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("Thu, 01 Jan 2026 00:00:20 GMT", 20.0), ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
     (None, None), ("soon", None), ("-1", None), ("nan", None), ("inf", None), ("1e400", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert asked_to_wait(value, NOW) == seconds


def test_waits_grow_are_drawn_from_the_key_and_never_shorter_than_asked() -> None:
    waits = [pause(7, attempt, None) for attempt in range(1, 12)]
    assert waits == [pause(7, attempt, None) for attempt in range(1, 12)]
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits[:6]))
    assert max(waits) <= 30 and pause(8, 1, None) != waits[0]
    assert 20 <= pause(7, 1, 20.0) <= 21


def test_a_failed_state_says_it_in_one_line() -> None:
    line = exhausted(refusal(429, "slow down", 20.0), 5, 120.0)
    assert line == "429 Too Many Requests after 5 attempts, last asked to wait 20 s: slow down"
    assert exhausted(refusal(599, ""), 1, 120.0) == "status 599"


FAULTS: dict[str, Plan] = {
    "500": {0: status(500), 1: status(503)},
    "429": {0: busy(2), 1: busy()},
    "reset": {0: Break(), 1: Break(how="close")},
    "broken before the first piece": {0: Break(after=0), 1: Break(after=0, how="end")},
    "no JSON": {0: Garbled(), 1: page()},
    "no body": {0: empty(), 1: error_event(after=0)},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_asked_again_and_the_answer_is_the_same(faults: Plan) -> None:
    with FakeServer() as good, FakeServer(faults=faults) as bad:
        wanted, waits = ask(good), Waits()
        found = ask(bad, waits=waits)
        assert (found.text, found.failed) == (wanted.text, 0)
        assert len(waits) == 2 and found.cost.calls == bad.counts.requests["/chat/completions"] == 3


def test_retry_after_is_honoured() -> None:
    when = datetime.fromtimestamp(NOW + 40, UTC)
    with FakeServer(faults={0: busy(7), 1: busy(when)}) as server:
        waits = Waits()
        assert ask(server, waits=waits).failed == 0
        assert 7 <= waits[0] < 9 and 40 <= waits[1] < 42


def test_a_server_that_wants_hours_is_not_asked_again() -> None:
    with FakeServer(faults=busy(7200)) as server:
        found = ask(server)
        assert found.errors == (
            "429 Too Many Requests, asked to wait 7200 s, more than patience=120: too many requests",
        )
        assert server.counts.requests["/chat/completions"] == 1


def test_a_server_that_never_answers_fails_the_state_and_its_calls_are_paid() -> None:
    with FakeServer(faults=status(503, "overloaded")) as server:
        found = ask(server, n=3, retries=2)
        assert found.text is None and found.failed == 3
        assert found.errors[0] == "503 Service Unavailable after 3 attempts: overloaded"
        assert found.cost.calls == server.counts.requests["/chat/completions"] == 9
        assert found.cost.tokens == 0 and not found.cost.estimated


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_what_is_wrong_is_not_asked_again(code: int) -> None:
    with FakeServer(faults=status(code, "no such thing")) as server:
        found = ask(server, n=2)
        assert found.errors[0].startswith(f"{code} ") and found.errors[0].endswith(": no such thing")
        assert server.counts.requests["/chat/completions"] == 2


def test_failed_samples_are_left_out_of_the_vote_and_counted() -> None:
    with FakeServer(faults={1: status(400), 4: status(400)}) as server:
        found = ask(server, n=8)
        assert found.note == "2 of 8 samples failed." and found.finished == 6
        assert found.text in Toy().outputs()


def test_nobody_there_is_a_failed_state() -> None:
    with FakeServer() as server:
        url = server.url
    with Endpoint(url, "toy", api="chat", retries=1, sleep=Waits()) as endpoint:
        run = Run(EndpointProcess(endpoint, "Hello?"), search.sample(n=1), seed=1)
        with pytest.raises(AllFailed, match="cannot connect to http://.* after 2 attempts"):
            drive(run)
        assert run.spent.calls == 0  # no request ever left


@pytest.mark.parametrize("how", ["reset", "close", "end", "short"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_stream_that_breaks_goes_on_from_where_it_was(api: Any, how: Any) -> None:
    def answer(faults: Plan) -> tuple[list[str], int, FakeServer]:
        with FakeServer(faults=faults) as server, Endpoint(server.url, api=api, sleep=Waits()) as endpoint:
            process = EndpointProcess(endpoint, "Which letters?")
            run = Run(process, search.self_consistency(n=8), seed=5)
            drive(run)
            assert run.answer is not None and run.answer.population is not None and run.answer.failed == 0
            return list(process.texts(run.answer.population.states)), run.spent.calls, server

    wanted, calls, _ = answer(None)
    found, more, server = answer(lambda request: Break(after=1, how=how) if _fresh(request) else None)
    assert found == wanted and more > calls
    assert server.counts.in_flight == 0


def _fresh(request: Request) -> bool:
    """Not a request that goes on with a reply."""
    return not request.prefix and not request.prompt.endswith(("α", "β"))


@pytest.mark.parametrize("owner", ["anystep", "nobody"])
def test_where_it_cannot_go_on_a_broken_stream_fails(owner: str) -> None:
    def breaks(request: Request) -> Break | None:
        return Break(after=1) if request.get("max_tokens", 1) > 1 else None  # a probe asks for one token

    with FakeServer(offers=Offers(continuation="refused", owner=owner), faults=breaks) as server:
        found = ask(server, n=4)
        assert found.failed and "Unrecognized request argument supplied" in found.errors[0], found.errors
