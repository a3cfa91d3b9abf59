"""Tools over a chat route, against a server that counts: native calls, costs, failures, cuts and races."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from anystep import Budget, Run, Status, UsageError, drive, search, solve
from anystep.answer import AllFailed
from anystep.language.endpoint import Endpoint, Prices
from anystep.language.endpoint.deltas import deltas
from anystep.language.tools import ToolProcess, tool
from anystep.testing import Work, process_checks
from anystep.testing.checks_process import some_keys
from anystep.testing.limits import unlimited
from anystep.testing.server import (
    Break,
    FakeServer,
    Fault,
    Gate,
    Hang,
    Offers,
    Piece,
    Request,
    Said,
    ToolCall,
    pieces,
    status,
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def calling(*calls: tuple[str, str], text: str = "") -> Said:
    return Said((*pieces(text), Piece("")) if text else (), tool_calls=tuple(ToolCall(*call) for call in calls))


def saying(text: str) -> Said:
    return Said((*pieces(text), Piece("")))


def adds(request: Request, choice: int) -> Said:
    """Asks for two sums, then says the last one."""
    last = request.messages[-1]
    if last["role"] == "user":
        return calling(("add", '{"a": 1, "b": 2}'), ("add", '{"a": 3, "b": 4}'))
    return saying(f"It is {last['content']}.")


@tool
def now() -> int:
    """What time it is."""
    return 3


def undecided(request: Request, choice: int) -> Said:
    """By the seed: a call, two, a wrong one, or an answer."""
    turns = [calling(("now", "{}")), calling(("now", "{"), ("now", ""), text="Well"), saying("3")]
    return turns[(request.seed // 7) % 3]


@contextmanager
def served(script: Any = adds, faults: Any = None, offers: Offers | None = None, **options: Any) -> Iterator[Any]:
    async def at_once(seconds: float) -> None:
        return None

    with (
        FakeServer(script, faults=faults, offers=offers) as server,
        Endpoint(server.url, sleep=at_once, **options) as endpoint,
    ):
        yield server, endpoint


@pytest.fixture(scope="module")
def undecided_server() -> Iterator[FakeServer]:
    with FakeServer(undecided, offers=Offers(stop_reason=False)) as server:
        yield server


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
def test_it_is_a_process(check: Any, undecided_server: FakeServer) -> None:
    server = undecided_server
    with Endpoint(server.url) as endpoint:

        @contextmanager
        def hook() -> Iterator[Work]:
            def asked() -> int:
                endpoint.ask("GET", "/models")  # what was sent before has been read when this is answered
                assert server.idle()
                return server.counts.requests.get("/chat/completions", 0)

            work, before = Work(), asked()
            yield work
            work.calls = asked() - before

        check(ToolProcess(endpoint, "What time is it?", [now], max_turns=2), hook)


def test_calls_and_results_travel_as_the_server_knows_them() -> None:
    with served() as (server, endpoint):
        answer = solve("unused", model=ToolProcess(endpoint, "1 + 2?", [add], max_tokens=50))
    assert answer.text == "It is 7."
    body = server.requests[-1].body
    assert body["tools"] == [add.described()] and body["max_tokens"] == 50
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [c["function"]["arguments"] for c in body["messages"][1]["tool_calls"]] == [
        '{"a": 1, "b": 2}',
        '{"a": 3, "b": 4}',
    ]
    assert [m["tool_call_id"] for m in body["messages"][2:]] == ["call_0", "call_1"]


def test_what_is_paid_is_what_the_server_counted() -> None:
    with served(prices=Prices(prompt=1.0, generated=2.0)) as (server, endpoint):
        answer = solve("unused", model=ToolProcess(endpoint, "1 + 2?", [add]), method=search.sample(n=3))
        assert server.idle()
    cost, counts = answer.cost, server.counts
    assert (cost.prompt, cost.generated, cost.calls) == (counts.prompt, counts.generated, 6)
    assert not cost.estimated and cost.money == pytest.approx((cost.prompt + 2 * cost.generated) / 1e6)


def test_what_is_not_streamed_is_read_too() -> None:
    def faults(request: Request) -> Fault | None:
        return status(400, "Unknown parameter: 'stream'.") if "stream" in request.body else None

    with served(faults=faults) as (server, endpoint):
        assert solve("unused", model=ToolProcess(endpoint, "1 + 2?", [add])).text == "It is 7."
        assert not server.requests[-1].stream


def test_a_model_reads_what_it_did_wrong() -> None:
    def script(request: Request, choice: int) -> Said:
        last = request.messages[-1]
        return saying(last["content"]) if last["role"] == "tool" else calling(("add", '{"a": 1,'))

    with served(script) as (server, endpoint):
        answer = solve("unused", model=ToolProcess(endpoint, "1 + 2?", [add]))
    assert answer.text.startswith("Error: the arguments of add are no JSON") and '{"a": 1,' in answer.text
    (call,) = server.requests[-1].messages[1]["tool_calls"]
    assert call["function"]["arguments"] == "{}"  # some servers refuse what is no JSON


def test_a_turn_that_reaches_its_cap_fails() -> None:
    with served() as (_, endpoint), pytest.raises(AllFailed, match="max_tokens=3"):
        solve("unused", model=ToolProcess(endpoint, "1 + 2?", [add], max_tokens=3))


def test_a_turn_that_breaks_off_fails_alone_and_a_refused_one_is_asked_again() -> None:
    faults: dict[int, Fault] = {0: status(503), 1: Break(after=4)}
    with served(faults=faults) as (server, endpoint):
        answer = solve("unused", model=ToolProcess(endpoint, "1 + 2?", [add]), method=search.self_consistency(n=4))
        assert server.idle()
    assert answer.text == "It is 7." and answer.failed == 1 and "1 of 4 samples failed." in answer.note
    assert "cannot be continued" in answer.errors[0]


def test_a_cancel_reaches_the_server() -> None:
    with served(faults=Hang(after=2)) as (server, endpoint):
        run = Run(ToolProcess(endpoint, "1 + 2?", [add]), search.sample(n=3))
        driver = threading.Thread(target=drive, args=(run,))
        driver.start()
        assert server.counting.until(10, in_flight=3)
        run.cancel()
        driver.join(10)
        assert not driver.is_alive() and server.idle() and server.counts.cancelled == 3
    assert run.answer is not None and run.answer.stopped_because == "cancelled"


def test_the_first_to_finish_is_the_first_in_time_and_the_others_are_cancelled() -> None:
    """Three trajectories are held at their second turn; the one with the highest number is let go alone."""
    gate, seen = Gate(after=1), list[int]()

    def faults(request: Request) -> Fault | None:
        if request.messages[-1]["role"] == "user":
            return None
        seen.append(request.number)
        return gate if len(seen) < 3 else Free(gate)

    with served(faults=faults) as (server, endpoint):
        (answer,) = drive(Run(ToolProcess(endpoint, "1 + 2?", [add]), search.first_finish(n=3)))
        assert server.idle()
        gate.release()
    assert (answer.finished, answer.text, server.counts.cancelled) == (1, "It is 7.", 2)
    assert (answer.cost.prompt, answer.cost.calls) == (server.counts.prompt, 6)


class Free(Fault):
    """Goes on once two others are held."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    async def before(self, exchange: Any) -> bool:
        import asyncio

        assert await asyncio.get_running_loop().run_in_executor(None, self.gate.wait, 2)
        return False


def test_of_a_race_no_more_than_k_are_done() -> None:
    with served() as (_, endpoint):
        process = ToolProcess(endpoint, "1 + 2?", [add])
        states = process.start(some_keys(6), unlimited()).states
        for k in (1, 3):
            reply = process.step(states, some_keys(6), unlimited(), k)
            assert int((reply.status == Status.DONE).sum()) == k and reply.cut is not None and reply.cut.sum() == 6 - k


def test_calls_of_a_race_share_their_places() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def busy() -> str:
        """Count how many are here."""
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return "done"

    def script(request: Request, choice: int) -> Said:
        return calling(("busy", "{}")) if request.messages[-1]["role"] == "user" else saying("ok")

    with served(script) as (_, endpoint):
        drive(Run(ToolProcess(endpoint, "Go on.", [busy], at_once=1), search.sample(n=8)))
    assert most == 1


def test_a_budget_cuts_between_turns() -> None:
    with served() as (server, endpoint):
        process = ToolProcess(endpoint, "1 + 2?", [add])
        (answer,) = drive(Run(process, search.sample(n=1), Budget(calls=1), reserve=0.0))
        assert server.idle()
    assert answer.stopped_because == "calls" and server.counts.requests["/chat/completions"] == 1


def test_pieces_of_calls_are_read_however_they_are_written() -> None:
    whole = {"message": {"tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}, "nothing", {"id": 3}]}}
    (delta,) = deltas({"choices": [{"index": 0, **whole}]})
    assert [(p.index, p.id, p.name, p.arguments) for p in delta.asked] == [(0, "", "add", '{"a": 1}')]
    (none,) = deltas({"choices": [{"index": 0, "delta": {"tool_calls": None}}]})
    assert none.asked == ()


def test_a_half_written_call_is_part_of_the_state() -> None:
    with served() as (_, endpoint):
        process = ToolProcess(endpoint, "1 + 2?", [add])
        states = process.step(process.start(some_keys(1), unlimited()).states, some_keys(1), unlimited(), "step").states
    assert process.load(process.dump(states)) == states
    assert [name for _, name, _ in states.turn.rows[0].asked] == ["add", "add"]
    assert json.loads(process.dump(states).partition(b"\n")[0])[0]["pending"][0]["name"] == "add"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"extra": {"tools": []}}, "give functions"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1}, "temperature=-1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: Any, told: str) -> None:
    with Endpoint("http://127.0.0.1:9/v1#none") as endpoint, pytest.raises(UsageError, match=told):
        ToolProcess(endpoint, "1 + 2?", [add], **options)


def test_a_completions_endpoint_has_no_tools() -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1#none", api="completions")
    with endpoint, pytest.raises(UsageError, match="chat route"):
        ToolProcess(endpoint, "1 + 2?", [add])


def test_tools_on_an_endpoint_need_no_torch() -> None:
    code = (
        "import sys; from anystep.language.tools import ToolProcess\n"
        "def add(a: int) -> int: return a\n"
        "ToolProcess('http://127.0.0.1:9/v1#none', 'x', [add])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
