"""Runs on a concurrent process go on side by side; an answer for every question, whatever happens to the others."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import anystep
from anystep import search
from anystep.answer import AllFailed
from anystep.drive import adrive, drive
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Budget, Cost, JointLimit, Ledger, Limit
from anystep.process import Process, Status, Stepped, Until
from anystep.run import Run


class Rows(tuple):  # type: ignore[type-arg]
    def take(self, index: Any) -> Rows:
        return Rows(self[i] for i in np.asarray(index).tolist())

    def join(self, *others: Any) -> Rows:
        return Rows([*self, *(x for o in others for x in o)])


class Waiting(Process):
    """Its step waits until `together` steps are under way at once, so that it can only end beside others."""

    name, horizon, concurrent = "waiting", 1, True

    def __init__(self, gate: threading.Barrier | None = None, says: str = "yes", fails: bool = False) -> None:
        self.gate, self.says, self.fails = gate, says, fails

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        return Stepped(Rows([""] * n), np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
        n = len(keys)
        paid = limit.pay(np.arange(n), Cost(generated=1, calls=1))
        if self.gate is not None:
            self.gate.wait(timeout=20)
        status = np.where(paid, Status.FAILED if self.fails else Status.DONE, Status.LIVE).astype(np.int8)
        errors = {i: "no" for i in range(n)} if self.fails else {}
        return Stepped(Rows([self.says] * n), status, np.zeros(n), np.zeros(n), limit.used, ~paid, errors)

    def answers(self, states: Any) -> tuple[str, ...]:
        return tuple(states)


def test_concurrent_runs_are_under_way_at_the_same_time() -> None:
    gate = threading.Barrier(5)
    answers = drive(*(Run(Waiting(gate, f"{i}"), search.sample(n=2), seed=i) for i in range(5)))
    assert [a.value for a in answers] == list("01234") and [a.cost.calls for a in answers] == [2] * 5


def test_concurrent_runs_are_under_way_at_the_same_time_in_an_event_loop() -> None:
    gate = threading.Barrier(5)
    answers = asyncio.run(adrive(*(Run(Waiting(gate, f"{i}"), search.sample(n=1), seed=i) for i in range(5))))
    assert [a.value for a in answers] == list("01234")


def test_a_run_is_watched_in_its_own_thread_and_not_in_the_event_loop_s() -> None:
    async def watched() -> tuple[set[int], int]:
        seen: set[int] = set()
        run = Run(Waiting(), search.sample(n=2), watch=lambda run: seen.add(threading.get_ident()))
        seen.clear()  # making a run tells its watcher too, in the thread that makes it
        await adrive(run)
        return seen, threading.get_ident()

    seen, loop = asyncio.run(watched())
    assert seen and loop not in seen


def test_one_failed_run_leaves_the_others_theirs() -> None:
    runs = [Run(Waiting(fails=i == 1, says=f"{i}"), search.sample(n=2), seed=i) for i in range(3)]
    with pytest.raises(AllFailed):
        drive(*runs)
    assert [r.result().value for r in runs] == ["0", None, "2"]
    lost = runs[1].result()
    assert (lost.stopped_because, lost.failed, lost.started, lost.cost.calls) == ("failed", 2, 2, 2)


def test_solve_many_answers_what_it_can() -> None:
    seen: list[int] = []
    answers = anystep.solve_many(
        ["a", "b", "c"],
        Waiting(),
        search.sample(n=3),
        Budget(calls=10),
        at_once=2,
        done=lambda i, answer: seen.append(i),
    )
    assert [a.text for a in answers] == ["yes"] * 3 and seen == [0, 1, 2]


def test_what_one_item_raises_costs_the_others_nothing() -> None:
    """Each item says its own error, with what it had paid by then, and all others are answered."""

    class Breaking(Waiting):
        def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
            reply = super().step(states, keys, limit, until)
            if keys[0] in broken:
                raise broken[keys[0]]
            return reply

    process, method, told = Breaking(), search.sample(n=1), list[int]()
    broken = {}
    for i, error in ((1, RuntimeError("first")), (4, ValueError("second"))):
        run = Run(process, method, seed=i)
        run.tell([run.calls[0].perform()])
        broken[run.calls[0].keys[0]] = error
    answers = anystep.solve_many(
        ["?"] * 6, process, method, Budget(calls=100), done=lambda i, answer: told.append(i), at_once=6
    )
    assert [a.text for a in answers] == ["yes", None, "yes", "yes", None, "yes"] and told == list(range(6))
    assert [answers[i].note for i in (1, 4)] == ["RuntimeError: first", "ValueError: second"]
    assert [a.cost.calls for a in answers] == [1] * 6 and answers[1].stopped_because == "failed"


def test_an_interrupt_while_runs_are_begun_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run(Waiting(), search.sample(n=1), seed=i) for i in range(4)]
    submit, begun = ThreadPoolExecutor.submit, list[int]()

    def interrupted(pool: ThreadPoolExecutor, *work: Any) -> Any:
        if len(begun) == 2:
            raise KeyboardInterrupt
        begun.append(1)
        return submit(pool, *work)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drive(*runs)
    assert all(run.ledger.cancelled for run in runs)
    assert not [t for t in threading.enumerate() if t.name.startswith("anystep-run")]


def test_solve_many_refuses_one_question_and_no_room() -> None:
    with pytest.raises(UsageError, match="several questions"):
        anystep.solve_many("What is 2 + 2?", Waiting())
    with pytest.raises(UsageError, match="at_once=0"):
        anystep.solve_many(["a"], Waiting(), at_once=0)


def test_a_merged_call_is_corrected_row_by_row() -> None:
    one, two = Limit(Ledger(), "a"), Limit(Ledger(), "b")
    joint = JointLimit([one, two], [1, 2])
    joint.pay([0, 1, 2], Cost(generated=4))
    joint.charge(Cost(generated=-1, prompt=7), row=2)
    assert (one.used.tokens, two.used.tokens) == (4, 14) and joint.used.tokens == 18
    with pytest.raises(TypeError, match="row by row"):
        joint.charge(Cost(calls=1))


def test_seconds_of_an_earlier_life_count() -> None:
    now = [100.0]
    ledger = Ledger(Budget(seconds=10), reserve=0.0, clock=lambda: now[0])
    ledger.resume(8.0)
    assert ledger.pay(Cost(calls=1), "x")
    now[0] = 103.0
    assert not ledger.pay(Cost(calls=1), "x") and ledger.refused == "seconds"
