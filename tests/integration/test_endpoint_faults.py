"""An endpoint's client in a hostile world: failures are typed and cost no other sample, bills are true, and whatever a
server says is read or refused. All that is asserted was counted at the server."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from anystep import Run, drive, search
from anystep.answer import AllFailed
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.testing.oracles import EnumerableLM
from anystep.testing.server import (
    LLAMA_CPP,
    OPENAI,
    VLLM,
    Break,
    Cut,
    Dressed,
    Edited,
    FakeServer,
    Fault,
    Garbled,
    Hang,
    Inject,
    Offers,
    Reply,
    Toy,
    Usage,
    busy,
    empty,
    error_event,
    page,
    says,
    status,
    too_long,
)
from hostile import FOUR, MADE, QUESTION, READ, TEXT, N, Waits, exact, hit, hits, solve, some


class Noise(Fault):
    """What answers is no HTTP server."""

    async def before(self, exchange: Any) -> bool:
        await exchange.peer.write(b"\x16\x03\x01 SSH-2.0-hello\r\n\r\n")
        raise Cut("close")


LOST = {
    "500": status(500),
    "502 as a page": page(502),
    "503": status(503),
    "429": busy(),
    "429 with seconds": busy(1),
    "429 with a date": busy(datetime(2020, 1, 1, tzinfo=UTC)),
    "401": status(401),
    "404": status(404),
    "context": too_long(),
    "page": page(),
    "empty": empty(),
    "garbled": Garbled(),
    "hang": Hang(),
    "hang after 2": Hang(after=2),
    "reset": Break(None, "reset"),
    "close": Break(None, "close"),
    "reset after head": Break(0, "reset"),
    "reset after 2": Break(2, "reset"),
    "close after 2": Break(2, "close"),
    "short chunk": Break(2, "short"),
    "half-closed": Break(2, "end"),
    "error event": error_event(2),
    "bad event": Inject(1),
    "no choices": Edited("no choices"),
    "redirect": Reply(307, b"", {"location": "http://127.0.0.1:9/v1"}),
    "no content": Reply(204, b""),
    "not gzip": Reply(200, b"plain", {"content-encoding": "gzip"}),
    "not utf-8": Inject(1, b"data: \xff\xfe{\n\n"),
    "deeply nested": Inject(1, b"data: " + b"[" * 200_000 + b"\n\n"),
    "not http": Noise(),
}


FINAL = ["401", "404", "context"]  # asking again does not help
ODD = ["redirect", "no content", "not gzip"]  # it may or may not


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_a_sample_that_is_lost_is_a_failed_state_and_the_rest_goes_on(fault: Fault) -> None:
    # Silence is told by a clock: a short one, and attempts to spare for a sample that a busy machine holds up.
    patient: dict[str, Any] = {"timeout": 0.75, "retries": 3} if isinstance(fault, Hang) else {"retries": 1}
    with FakeServer(FOUR, faults=some(fault)) as server:
        answer = solve(server, **patient)
        lost = hits(server)
        assert 0 < lost < N
        assert (answer.started, answer.finished, answer.failed) == (N, N - lost, lost)
        assert answer.note == f"{lost} of {N} samples failed."
        assert answer.value == "The answer is 4." and answer.support == 1.0
        assert len(answer.errors) == lost and all(line and "\n" not in line for line in answer.errors)
        assert server.idle() and server.counts.in_flight == 0


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_all_lost_is_said_with_the_first_reason(fault: Fault) -> None:
    with FakeServer(FOUR, faults=fault) as server:
        with pytest.raises(AllFailed, match="All 4 (states|samples) failed"):
            solve(server, "sample(n=4)", timeout=0.2, retries=0)
        assert server.idle()


def test_what_is_lost_once_is_asked_for_again() -> None:
    for fault in LOST.values():
        if fault in [LOST[name] for name in (*FINAL, *ODD)]:
            continue
        hangs = isinstance(fault, Hang)
        with FakeServer(FOUR, faults=some(fault, times=1)) as server:
            answer = solve(server, timeout=0.5 if hangs else 60.0)
            assert (answer.finished, answer.failed, answer.note) == (N, 0, ""), fault
            assert answer.population.answers == (TEXT,) * N
            assert answer.cost.calls == server.counts.requests["/chat/completions"] and hits(server) > 0
            asked = sum("seed" in request.body for request in server.requests)  # the others are probes
            assert asked == N + hits(server) or (hangs and asked > N)


@pytest.mark.parametrize("name", FINAL)
def test_what_no_asking_can_mend_is_asked_once(name: str) -> None:
    with FakeServer(FOUR, faults=some(LOST[name])) as server:
        solve(server)
        assert server.counts.requests["/chat/completions"] == N


def test_a_reply_that_broke_off_goes_on_where_the_server_can_and_says_what_it_would_have_said() -> None:
    toy = Toy(EnumerableLM(seed=3, vocab=4, length=6))
    with FakeServer(toy) as plain, FakeServer(toy, faults=lambda r: Break(1, "close") if hit(r) else None) as server:
        whole, mended = solve(plain, "sample(n=24)"), solve(server, "sample(n=24)", retries=8)
        assert mended.population.states.texts() == whole.population.states.texts() and mended.failed == 0
        assert server.counts.broken > 5 and mended.cost.estimated
        assert server.counts.calls > plain.counts.calls


FINE = {
    "plain": Fault(),
    "crlf and comments": Dressed(crlf=True, comments=True),
    "a byte at a time": Dressed(size=1),
    "split characters": Dressed(size=7, crlf=True),
    "done twice": Dressed(done=2),
    "no done": Dressed(done=0),
    "huge chunks": Dressed(padding=1 << 18),
    "slow drip": Dressed(seconds=0.002, size=40),
    "odd finish": Edited("odd finish"),
}


@pytest.mark.parametrize("fault", FINE.values(), ids=FINE.keys())
def test_what_is_right_but_odd_is_read_and_billed_exactly(fault: Fault) -> None:
    toy = Toy(EnumerableLM(seed=3, vocab=4, length=6))
    with FakeServer(toy) as plain, FakeServer(toy, faults=fault) as server:
        n = 4 if fault == FINE["huge chunks"] else N
        whole, odd = solve(plain, f"sample(n={n})"), solve(server, f"sample(n={n})")
        assert odd.population.states.texts() == whole.population.states.texts() and odd.failed == 0
        exact(odd, server)


@pytest.mark.parametrize("how", ["large", "negative", "missing", "null", "strings", "list", "small"])
def test_figures_that_cannot_be_true_are_not_believed_and_said_to_be_estimated(how: Any) -> None:
    with FakeServer(FOUR, faults=Usage(how)) as server:
        answer = solve(server)
        assert answer.finished == N and answer.cost.estimated
        assert answer.cost.generated == N * (MADE - 1)  # what was seen: all but the end token
        assert N <= answer.cost.prompt < 4 * server.counts.prompt
        assert answer.cost.calls == N


def test_tokens_found_in_the_servers_cache_are_shown_and_free() -> None:
    with FakeServer(FOUR, caches=True) as server:
        answer = solve(server, concurrency=1)
        exact(answer, server)
        assert (answer.cost.prompt, answer.cost.cached) == (READ, (N - 1) * READ)


OFFERS = {
    "vllm": VLLM,
    "llama.cpp": LLAMA_CPP,
    "openai": OPENAI,
    "nothing extra": Offers(stop_reason=False, continuation="ignored", continuous="ignored", owner="somebody"),
    "no usage": Offers(usage="ignored"),
    "usage refused": Offers(usage="refused", owner="somebody"),
    "seed refused": Offers(seed="refused", others="refused", owner="somebody"),
    "strict": Offers(continuous="refused", others="refused", owner="vllm"),
}


@pytest.mark.parametrize("offers", OFFERS.values(), ids=OFFERS.keys())
def test_servers_differ_and_answers_do_not(offers: Offers) -> None:
    with FakeServer(FOUR, offers) as server:
        answer = solve(server)
        assert answer.population.answers == (TEXT,) * N and answer.failed == 0
        if offers.usage == "yes":
            assert (answer.cost.prompt, answer.cost.generated) == (server.counts.prompt, server.counts.generated)
            assert not answer.cost.estimated
        else:
            assert answer.cost.estimated and N * (MADE - 1) <= answer.cost.generated < server.counts.generated
        assert server.counts.requests["/chat/completions"] <= N + 17  # a refused parameter is found out, not retried


@pytest.mark.parametrize("offers", [Offers(), LLAMA_CPP, VLLM], ids=["ours", "llama.cpp", "vllm"])
def test_choices_that_share_a_request_share_its_prompt_and_its_bill(offers: Offers) -> None:
    with FakeServer(says("one", "two", "three four"), offers) as server, Endpoint(server.url) as endpoint:
        process = EndpointProcess(endpoint, QUESTION, n=4)
        (answer,) = drive(Run(process, search.sample(n=8)))
        asked = [request.n for request in server.requests if "seed" in request.body]
        assert answer.finished == 8 and asked == [4, 4]
        exact(answer, server)


JUNK = [None, True, -1, 10**30, 1.5, float("nan"), "", "x" * 300, "\ud800", [], [[]], {}, {"a": {}}, ["a", None, 3]]


class Fuzzed(Fault):
    """Replaces something, somewhere, in about half of the objects by something else, as told by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def edit(self, found: dict[str, Any]) -> dict[str, Any]:
        found = json.loads(json.dumps(found))
        place: Any = found
        while self.random.random() < 0.7:
            inner = [
                v for v in (place.values() if isinstance(place, dict) else place) if isinstance(v, (dict, list)) and v
            ]
            if not inner:
                break
            place = self.random.choice(inner)
        if self.random.random() < 0.5:
            at = self.random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            place[at] = self.random.choice(JUNK)
        return found


class Flipped(Fault):
    """Changes a byte of about a third of the events."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def wire(self, data: bytes) -> bytes:
        changed = bytearray(data)
        if self.random.random() < 0.3:
            changed[self.random.randrange(len(changed))] = self.random.randrange(256)
        return bytes(changed)


@pytest.mark.parametrize("kind", [Fuzzed, Flipped])
def test_nothing_that_a_server_may_say_is_an_error_of_ours(kind: type[Fuzzed | Flipped]) -> None:
    odd = []
    for seed in range(10):
        with FakeServer(FOUR, offers=(Offers(), LLAMA_CPP)[seed % 2], faults=kind(seed)) as server:
            with Endpoint(server.url, sleep=Waits(), retries=1, timeout=2) as endpoint:
                process = EndpointProcess(endpoint, QUESTION, n=1 + seed % 3, logprobs=seed % 5 == 0)
                run = Run(process, search.sample(n=3))
                with suppress(AllFailed):
                    drive(run)
            assert server.idle(20)
            odd += [line for line in run.books.family.errors.values() if "Error" in line.split(":")[0]]
            assert run.spent.generated < 10_000 and run.spent.prompt < 10**6
    assert not odd
