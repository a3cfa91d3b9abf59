"""An endpoint's client keeps within its budget, waits its turn, and leaves nothing running, whatever ends it: counted
at the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import anystep
from anystep import Budget, Run, drive, search
from anystep.answer import AllFailed
from anystep.language.endpoint import Endpoint, EndpointProcess, Prices, events
from anystep.ledger import Ledger
from anystep.solve import run_for
from anystep.testing.server import (
    Dressed,
    FakeServer,
    Fault,
    Gate,
    Hang,
    Request,
    busy,
    status,
)
from hostile import FOUR, MADE, QUESTION, READ, ROOT, TEXT, N, Shown, Waits, hits, solve, some

# Budgets


def test_a_budget_of_calls_is_never_overshot() -> None:
    with FakeServer(FOUR, faults=some(status(500))) as server:
        answer = solve(server, budget=Budget(calls=10), retries=2)
        assert answer.cost.calls == server.counts.requests["/chat/completions"] <= 10
        assert answer.stopped_because == "calls" and answer.finished > 0


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_budget_of_tokens_is_overshot_by_what_is_on_the_wire_at_most(concurrency: int) -> None:
    with FakeServer(FOUR) as server:
        answer = solve(server, budget=Budget(tokens=150), concurrency=concurrency)
        assert answer.stopped_because == "tokens" and 0 < answer.finished < N
        spent = server.counts.prompt + server.counts.generated
        assert spent <= 150 + concurrency * (READ + MADE) and answer.cost.tokens <= 150 + concurrency * MADE
        assert server.idle() and server.counts.in_flight == 0


def test_a_deadline_ends_what_hangs_and_keeps_what_is_done() -> None:
    """The clock is the test's, and strikes when all has been shown that will ever come."""
    now, shown = [0.0], Shown()
    with FakeServer(FOUR, faults=some(Hang(after=1))) as server, Endpoint(server.url) as endpoint:
        ledger = Ledger(Budget(seconds=100), clock=lambda: now[0], show=shown)
        run = Run(EndpointProcess(endpoint, QUESTION), search.self_consistency(n=N), ledger=ledger)
        thread = threading.Thread(target=drive, args=(run,))
        thread.start()
        assert shown.until(lambda: (N - hits(server)) * (MADE - 1) + hits(server))
        now[0] = 101.0
        thread.join(60)
        assert run.answer is not None and run.answer.stopped_because == "seconds" and run.answer.value == TEXT
        assert 0 < run.answer.finished <= N - hits(server) and server.idle(20)
        assert server.counts.cancelled >= hits(server) > 0


def test_money_is_priced_from_the_true_tokens_and_bounds_them() -> None:
    prices = Prices(prompt=1.0, generated=10.0, cached=0.5)
    with FakeServer(FOUR, caches=True) as server:
        answer = solve(server, prices=prices, concurrency=1)
        told = READ * 1.0 + (N - 1) * READ * 0.5 + N * MADE * 10.0
        assert answer.cost.money == pytest.approx(told / 1e6)
    with FakeServer(FOUR) as server:
        cap = 5 * (READ * 1.0 + MADE * 10.0) / 1e6
        answer = solve(server, prices=prices, concurrency=1, budget=Budget(money=cap))
        assert answer.stopped_because == "money" and 0 < answer.finished <= 5
        assert (server.counts.prompt + 10 * server.counts.generated) / 1e6 <= cap + (READ + MADE * 10) / 1e6


# Waiting, concurrency and connections


def test_retry_after_is_honoured_in_seconds_and_as_a_date() -> None:
    now = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
    plan = {0: busy(7), 1: busy(datetime(2030, 1, 1, 12, 0, 9, tzinfo=UTC)), 2: status(503, retry_after="11")}
    with FakeServer(FOUR, faults=plan) as server:
        waits = Waits()
        with Endpoint(server.url, sleep=waits, now=now.timestamp) as endpoint:
            answer = anystep.solve(QUESTION, model=endpoint, method="sample(n=1)")
        assert answer.text == TEXT and server.counts.requests["/chat/completions"] == 4
        assert [round(wait) // 1 for wait in waits.asked] == pytest.approx([7, 9, 11], abs=1)
        assert all(wait >= asked for wait, asked in zip(waits.asked, (7, 9, 11), strict=True))


def test_a_server_that_asks_for_more_than_patience_is_not_asked_again() -> None:
    with FakeServer(FOUR, faults=some(busy(3600))) as server:
        answer = solve(server, patience=5)
        assert server.counts.requests["/chat/completions"] == N and answer.failed == hits(server)
        assert "3600" in answer.errors[0] and "429" in answer.errors[0]


def test_back_off_grows() -> None:
    with FakeServer(FOUR, faults=status(500)) as server, pytest.raises(AllFailed):
        waits = Waits()
        with Endpoint(server.url, sleep=waits, retries=4) as endpoint:
            anystep.solve(QUESTION, model=endpoint, method="sample(n=1)")
    assert len(waits.asked) == 4 and all(b > a for a, b in zip(waits.asked, waits.asked[1:], strict=False))


def test_no_more_requests_are_in_flight_than_allowed_over_all_runs() -> None:
    gate = Gate(after=1)
    with FakeServer(FOUR, faults=gate) as server, Endpoint(server.url, concurrency=4) as endpoint:
        runs = [run_for(QUESTION, endpoint, "sample(n=8)", seed=seed) for seed in range(3)]
        thread = threading.Thread(target=drive, args=runs)
        thread.start()
        assert gate.wait(4) and not gate.wait(5, timeout=0.3)
        gate.release()
        thread.join()
        assert server.counts.peak == 4 and server.counts.completed == 3 * 8 + server.counts.requests.get("/models", 0)
        assert all(run.answer is not None and run.answer.finished == 8 for run in runs)


def test_connections_are_used_again() -> None:
    with FakeServer(FOUR) as server, Endpoint(server.url, concurrency=4) as endpoint:
        for seed in range(4):
            anystep.solve(QUESTION, model=endpoint, method="sample(n=16)", seed=seed)
        assert server.counts.requests["/chat/completions"] == 64 and server.counts.connections <= 5


def test_a_server_that_was_restarted_is_met_again() -> None:
    with FakeServer(FOUR) as server, Endpoint(server.url, sleep=Waits()) as endpoint:
        assert anystep.solve(QUESTION, model=endpoint, method="sample(n=4)").finished == 4
        server.close()
        with FakeServer(FOUR, port=server.port):
            assert anystep.solve(QUESTION, model=endpoint, method="sample(n=4)", seed=1).finished == 4


# Leaving: nothing is left running, counted at the server


@contextmanager
def held(n: int = 8, after: int = 2) -> Iterator[tuple[FakeServer, Gate]]:
    """A server that holds every reply after some tokens; at the end all n must have been cancelled by the client."""
    gate = Gate(after=after)
    with FakeServer(FOUR, faults=gate) as server:
        yield server, gate
        assert server.idle(20), f"left running: {server.counts}"
        assert server.counts.cancelled == n and server.counts.generated == n * after


def test_a_run_that_is_cancelled_from_a_thread_leaves_nothing() -> None:
    with held() as (server, gate), Endpoint(server.url) as endpoint:
        shown = Shown()
        run = run_for(QUESTION, endpoint, "self_consistency(n=8)", show=shown)
        thread = threading.Thread(target=drive, args=(run,))
        thread.start()
        assert gate.wait(8) and shown.until(lambda: 16)
        run.cancel()
        thread.join(20)
        assert server.idle(20)
        assert run.answer is not None and run.answer.stopped_because == "cancelled"
        assert 0 < run.answer.cost.generated <= 16 and run.answer.cost.estimated


def test_a_cancel_finds_requests_that_wait_for_their_place() -> None:
    with held(n=1) as (server, gate), Endpoint(server.url, concurrency=1) as endpoint:
        run = run_for(QUESTION, endpoint, "sample(n=8)")
        thread = threading.Thread(target=drive, args=(run,))
        thread.start()
        assert gate.wait(1)
        run.cancel()
        thread.join(20)
        assert server.counts.requests["/chat/completions"] == 1


@pytest.mark.parametrize("how", ["cancel", "seconds"])
def test_a_wait_between_attempts_is_no_reason_to_stay(how: str) -> None:
    now = [0.0]
    with FakeServer(FOUR, faults=busy(50)) as server, Endpoint(server.url) as endpoint:
        ledger = Ledger(Budget(seconds=100), clock=lambda: now[0])
        run = Run(EndpointProcess(endpoint, QUESTION), search.sample(n=4), ledger=ledger)
        thread = threading.Thread(target=drive, args=(run,))
        thread.start()
        assert server.counting.until(60, completed=5)  # the list of models, and four refusals
        if how == "cancel":
            run.cancel()
        else:
            now[0] = 101.0
        thread.join(20)
        assert not thread.is_alive() and server.counts.requests["/chat/completions"] == 4


def test_an_asyncio_task_that_is_cancelled_leaves_nothing() -> None:
    async def main(server: FakeServer, gate: Gate) -> None:
        with Endpoint(server.url) as endpoint:
            task = asyncio.ensure_future(anystep.asolve(QUESTION, model=endpoint, method="sample(n=8)"))
            await asyncio.to_thread(gate.wait, 8)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.idle(20)

    with held() as (server, gate):
        asyncio.run(main(server, gate))


def test_the_first_to_finish_cancels_the_others() -> None:
    winner, losers = Gate(after=2), Gate(after=2)

    def plan(request: Request) -> Fault:
        return winner if request.number == 0 else losers

    with FakeServer(FOUR, faults=plan) as server:
        starter = threading.Thread(target=lambda: losers.wait(7) and winner.release())
        starter.start()
        answer = solve(server, "first_finish(n=8)")
        starter.join()
        assert answer.text == TEXT and answer.finished == 1
        assert server.idle(20) and server.counts.cancelled == 7
        assert server.counts.generated == MADE + 7 * 2


def test_an_endpoint_that_is_closed_in_another_thread_ends_its_runs() -> None:
    with held() as (server, gate):
        endpoint = Endpoint(server.url)
        run = run_for(QUESTION, endpoint, "sample(n=8)")
        thread = threading.Thread(target=lambda: pytest.raises(AllFailed, drive, run))
        thread.start()
        assert gate.wait(8)
        endpoint.close()
        thread.join(20)
        assert not thread.is_alive() and server.idle(20)


def child(*arguments: str) -> subprocess.Popen[str]:
    """Python with these arguments, its three streams piped."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    )


SOLVES = ["solve", QUESTION, "--method", "sample(n=8)", "--model"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_the_command_leaves_nothing_whatever_ends_it(number: int, code: int) -> None:
    with held() as (server, gate):
        command = child("-m", "anystep", *SOLVES, f"{server.url}#toy")
        assert gate.wait(8, 60)
        command.send_signal(number)
        out, err = command.communicate(timeout=60)
        assert command.returncode == code, (out, err)
        assert server.idle(20)
        if number == signal.SIGINT:
            assert "Traceback" not in err and "spent" in err


def test_a_comparison_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    gate = Gate(after=2)
    asked = ["compare", "--task", "word-problems", "--items", "4", "--methods", "self_consistency", "--ns", "2"]
    with FakeServer(FOUR, faults=gate) as server:
        command = child("-m", "anystep", *asked, "--out", str(tmp_path), "--model", f"{server.url}#toy")
        assert gate.wait(1, 60)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
        assert command.returncode == 130 and "Traceback" not in err, (out, err)
        assert server.idle(20)
        assert server.counts.cancelled == server.counts.requests["/chat/completions"] >= 1


def test_a_script_that_is_interrupted_leaves_nothing() -> None:
    code = """
    import signal, sys, anystep
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
    anystep.solve("What is two and two?", model=sys.argv[1], method="sample(n=8)")
    """
    with held() as (server, gate):
        script = child("-c", textwrap.dedent(code), f"{server.url}#toy")
        assert gate.wait(8, 60)
        script.send_signal(signal.SIGINT)
        _, err = script.communicate(timeout=60)
        assert "KeyboardInterrupt" in err and server.idle(20)


def test_an_interpreter_that_exits_leaves_nothing() -> None:
    code = """
    import sys, threading, anystep
    ask = lambda: anystep.solve("What is two and two?", model=sys.argv[1], method="sample(n=8)")
    threading.Thread(target=ask, daemon=True).start()
    sys.stdin.read()
    """
    with held() as (server, gate):
        script = child("-c", textwrap.dedent(code), f"{server.url}#toy")
        assert gate.wait(8, 60)
        _, err = script.communicate(timeout=60)  # closes its stdin
        assert script.returncode == 0, err


# What a server says is not trusted


def test_a_servers_words_reach_no_terminal_as_they_are() -> None:
    with FakeServer(FOUR, faults=status(401, "\x1b[31mred\x07\nand a second line")) as server:
        command = child("-m", "anystep", *SOLVES, f"{server.url}#toy")
        out, err = command.communicate(timeout=60)
    assert command.returncode == 1 and out == ""
    assert "red" in err and "\x1b" not in err and "\x07" not in err


def test_an_event_without_end_is_refused_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 1 << 16)
    with FakeServer(FOUR, faults={0: Dressed(padding=1 << 17)}) as server:
        answer = solve(server, "sample(n=4)", retries=0)
        assert answer.failed == 1 and "an event of more than 65,536 characters" in answer.errors[0]


def test_a_key_is_sent_and_never_shown() -> None:
    with FakeServer(FOUR, api_key="sk-right") as server:
        assert solve(server, "sample(n=2)", key="sk-right").finished == 2
        with pytest.raises(AllFailed) as failed:
            solve(server, "sample(n=2)", key="sk-wrong", model="toy")
        assert "401" in str(failed.value) and "sk-" not in str(failed.value)
        assert "sk-" not in repr(Endpoint(server.url, key="sk-wrong"))


def test_of_many_questions_the_one_that_fails_harms_no_other() -> None:
    def plan(request: Request) -> Fault | None:
        return status(500) if "bad" in request.messages[-1]["content"] else None

    with FakeServer(FOUR, faults=plan) as server, Endpoint(server.url, sleep=Waits(), retries=1) as endpoint:
        questions = [f"{'bad' if i == 3 else 'good'} question {i}" for i in range(8)]
        answers = anystep.solve_many(questions, model=endpoint, method="self_consistency(n=3)")
        assert [answer.text for answer in answers] == [TEXT] * 3 + [None] + [TEXT] * 4
        assert answers[3].stopped_because == "failed" and "500" in answers[3].errors[0]
        assert sum(answer.cost.calls for answer in answers) == server.counts.requests["/chat/completions"]


def test_nobody_listens_there() -> None:
    with FakeServer(FOUR) as server:
        pass
    with pytest.raises((AllFailed, anystep.errors.ModelError), match=r"127\.0\.0\.1"):
        solve(server, "sample(n=2)", retries=1)
