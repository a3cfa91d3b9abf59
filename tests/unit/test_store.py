"""What was run is kept: nothing finished is lost, nothing is paid twice, and a store is never mixed."""

from __future__ import annotations

import math
import multiprocessing
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anystep import search
from anystep.bench import Comparison, Entry, Store, Trial, compare, entry, is_store
from anystep.bench.queue import LANES
from anystep.errors import UsageError
from anystep.ledger import Cost, Limit
from anystep.process import Stepped
from anystep.tasks.task import Task
from toy_adder import Adder, Right, adding

TASKS = adding(5)


def best(ns: tuple[int, ...] = (1, 4)) -> Entry:
    return Entry("best", lambda n, task: search.best_of_n(n=n, reward=Right(task.meta["total"])), ns)


def filtering(ns: tuple[int, ...] = (4,)) -> Entry:
    def family(n: int, task: Any) -> Any:
        return search.particle_filter(n=n, potential=Right(task.meta["total"]).log_odds())

    return Entry("filter", family, ns)


def timeless(trials: Any) -> list[Trial]:
    return [
        replace(t, score=-1.0 if math.isnan(t.score) else t.score, cost=replace(t.cost, seconds=0.0)) for t in trials
    ]


class Stopped(Exception):
    """The process dies here."""


class Mortal(Adder):
    """Counts the steps of all of its kind, and dies in the one after `left`."""

    left = 10**9
    steps_taken = 0
    lock = threading.Lock()

    def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
        with Mortal.lock:
            if Mortal.left == 0:
                raise Stopped
            Mortal.left -= 1
            Mortal.steps_taken += 1
        return super().step(states, keys, limit, until)


def mortal_for(task: Task, greedy: bool = False) -> Adder:
    total = task.meta["total"]
    return Mortal(total, 0.6 if total % 2 == 0 else 0.35, greedy)


def kept(path: Path, entries: list[Entry], tasks: list[Task] = TASKS, **more: Any) -> Any:
    with Store(path) as store:
        return compare(entries, tasks, more.pop("process_of", mortal_for), store=store, **more)


GROUPS = len(TASKS)  # calls of one round: the toy's items do not share a batch


@pytest.mark.parametrize("dies", [6, 7, 9, 13, 21, 34])
def test_a_comparison_that_dies_goes_on_where_it_was(
    tmp_path: Path, dies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, asked = [best(), filtering()], {"seeds": (0, 1), "rows": 16}
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    whole = compare(entries, TASKS, mortal_for, **asked)
    steps = Mortal.steps_taken
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    deaths = 0
    while True:
        monkeypatch.setattr(Mortal, "left", dies)
        try:
            report = kept(tmp_path / "s.db", entries, **asked)
            break
        except Stopped:
            deaths += 1
    assert timeless(report.trials) == timeless(whole.trials) and report.complete
    assert deaths >= (steps - 1) // dies
    assert Mortal.steps_taken <= steps + deaths * (GROUPS - 1)  # the round under way alone is done again


def test_what_is_there_is_not_run_again_and_more_is_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    kept(path, [best(ns=(1,))], TASKS[:2])

    def runs(entries: list[Entry], tasks: list[Task], **more: Any) -> int:
        count = 0

        def process_of(task: Task, greedy: bool) -> Adder:
            nonlocal count
            count += 1
            return mortal_for(task, greedy)

        with Store(path) as store:
            comparison = Comparison(entries, tasks, process_of, store=store, **more)
            trials = comparison.run().trials
            assert len(trials) == comparison.total
        return count - 1  # one more to see whether it is concurrent

    assert runs([best(ns=(1,))], TASKS[:2]) == 0
    assert runs([best(ns=(1,))], TASKS[:3]) == 3  # greedy, self-consistency, best: one more item
    assert runs([best(ns=(1,))], TASKS[:3], seeds=(0, 1)) == 9
    assert runs([best(ns=(1, 4))], TASKS[:3], seeds=(0, 1)) == 12
    assert runs([best(ns=(1, 4)), filtering()], TASKS[:3], seeds=(0, 1)) == 6
    assert runs([best(ns=(1,))], TASKS[:1]) == 0  # and less is shown as less
    whole = compare([best(ns=(1, 4)), filtering()], TASKS[:3], mortal_for, seeds=(0, 1))
    again = kept(path, [best(ns=(1, 4)), filtering()], TASKS[:3], seeds=(0, 1))
    assert timeless(again.trials) == timeless(whole.trials)


def test_another_request_takes_over_what_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that an interrupted comparison paid for are not paid again by one that asks for fewer items."""
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    whole = compare([filtering()], TASKS[:3], mortal_for)
    steps = Mortal.steps_taken
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    monkeypatch.setattr(Mortal, "left", steps - 4)
    with pytest.raises(Stopped):
        kept(tmp_path / "s.db", [filtering()], TASKS[:3])
    monkeypatch.setattr(Mortal, "left", 10**9)
    report = kept(tmp_path / "s.db", [filtering()], TASKS[:2])
    assert timeless(report.trials) == timeless(t for t in whole.trials if t.item != TASKS[2].id)
    assert Mortal.steps_taken <= steps + 2


def test_a_cancel_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    whole = compare([filtering()], TASKS, mortal_for)
    path, seen = tmp_path / "s.db", []
    while len(seen) < 100:
        with Store(path) as store:
            comparison = Comparison([filtering()], TASKS, mortal_for, store=store)
            count = 0

            def process_of(task: Task, greedy: bool, c: Comparison = comparison) -> Adder:
                class Cancelling(Mortal):
                    def step(self, *given: Any) -> Stepped:
                        nonlocal count
                        count += 1
                        if count == 2:
                            c.cancel()
                        return super().step(*given)

                return Cancelling(task.meta["total"], 0.6 if task.meta["total"] % 2 == 0 else 0.35, greedy)

            comparison.process_of = process_of
            report = comparison.run()
        seen.append(len(report.trials))
        if report.complete:
            break
    assert seen == sorted(seen) and len(seen) > 3
    assert timeless(report.trials) == timeless(whole.trials)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": "other"}, "model 'adder' there, 'other' here"),
        ({"same": {"temperature": "0.7"}}, "temperature '1.0' there, '0.7' here"),
        ({"same": {"temperature": "1.0", "scorer": "exact"}}, "scorer none there, 'exact' here"),
        ({"tasks": [replace(TASKS[0], prompt="5 + 6 =")]}, "another item called 'sum-0': its content has changed"),
        ({"entries": [Entry("best", lambda n, task: search.sample(n=n), (1,))]}, "another method called 'best'"),
    ],
)
def test_a_store_is_never_mixed(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"entries": [best()], "tasks": TASKS, "model": "adder", "same": {"temperature": "1.0"}}
    kept(tmp_path / "s.db", asked.pop("entries"), asked.pop("tasks"), **asked)
    asked = {"entries": [best()], "tasks": TASKS, **asked, **changed}
    with pytest.raises(UsageError, match=says) as error:
        kept(tmp_path / "s.db", asked.pop("entries"), asked.pop("tasks"), **asked)
    assert "give another --store" in str(error.value)


def hold(path: Path, ready: Any, done: Any) -> None:
    with Store(path):
        ready.set()
        done.wait(60)


def test_a_second_process_is_refused_and_the_lock_goes_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(path, ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(UsageError, match="s.db is in use by another process"):
        Store(path)
    other.kill()  # however it ends
    other.join()
    Store(path).close()


def test_a_foreign_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(UsageError, match="notes.txt is no store of a comparison"):
        Store(text)
    assert text.read_text() == "hello"
    foreign = tmp_path / "f.db"
    db = sqlite3.connect(foreign)
    db.execute("create table t (x)")
    db.commit()
    db.close()
    with pytest.raises(UsageError, match="f.db is no store of a comparison"):
        Store(foreign)
    with pytest.raises(UsageError, match="cannot use"):
        Store(tmp_path)
    with pytest.raises(UsageError, match="cannot use"):
        Store(tmp_path / "no" / "folder.db")
    good = tmp_path / "g.db"
    kept(good, [best()])
    assert is_store(good) and not is_store(text) and not is_store(tmp_path)
    raw = good.read_bytes()
    for at in range(100, len(raw), max(1, len(raw) // 40)):  # whatever is torn, it is one line or still readable
        good.write_bytes(raw[:at] + b"\xff" * 200 + raw[at + 200 :])
        try:
            kept(good, [best()])
        except UsageError as error:
            assert "\n" not in str(error) and "g.db" in str(error)
    good.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UsageError, match="g.db"):
        kept(good, [best()])


def test_failed_runs_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    class Failing(Adder):
        def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
            stepped = super().step(states, keys, limit, until)
            rows = range(len(states))
            return replace(stepped, status=stepped.status * 0 + 2, errors={i: "the server is away" for i in rows})

    kept(path, [best(ns=(1,))], process_of=lambda t, greedy: Failing(t.meta["total"], 0.5, greedy))
    report = kept(path, [best(ns=(1,))])
    assert all(t.failed for t in report.trials)  # what ended is not paid again unasked
    with Store(path) as store:
        assert store.retry(("failed",)) == len(report.trials)
    assert not any(t.failed for t in kept(path, [best(ns=(1,))]).trials)


class Elsewhere(Mortal):
    concurrent = True


def test_runs_that_wait_elsewhere_are_stored_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def process_of(task: Task, greedy: bool) -> Adder:
        total = task.meta["total"]
        return Elsewhere(total, 0.6 if total % 2 == 0 else 0.35, greedy)

    whole = kept(tmp_path / "whole.db", [best(), filtering()], process_of=process_of)
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    kept(tmp_path / "again.db", [best(), filtering()], process_of=process_of)
    steps = Mortal.steps_taken
    monkeypatch.setattr(Mortal, "steps_taken", 0)
    monkeypatch.setattr(Mortal, "left", 30)
    died = 0
    while True:
        try:
            report = kept(tmp_path / "s.db", [best(), filtering()], process_of=process_of)
            break
        except Stopped:
            died += 1
            monkeypatch.setattr(Mortal, "left", 30)
    assert died >= 2
    assert timeless(report.trials) == timeless(whole.trials)
    # No row that had ended is asked for again; one that the death of another cut off may be, once a death and lane.
    assert steps <= Mortal.steps_taken <= steps + died * LANES


def test_an_error_of_one_item_stops_no_other() -> None:
    class Odd(Adder):
        def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
            if self.total == 12:
                raise UsageError("twelve is too many")
            return super().step(states, keys, limit, until)

    class There(Odd):
        concurrent = True

    for kind in (Odd, There):
        report = compare([best()], TASKS, lambda t, greedy, kind=kind: kind(t.meta["total"], 0.5, greedy))
        lost = [t for t in report.trials if t.item == "sum-2"]
        assert len(lost) == 5 and report.complete
        assert all(t.stopped_because == "error" and math.isnan(t.score) and "twelve" in t.error for t in lost)
        assert all(t.stopped_because == "finished" for t in report.trials if t.item != "sum-2")


def test_a_stored_trial_keeps_what_it_was(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.begin("x")
        odd = Trial("a\0b\u202e", 4, "m", "i\u2028'\"", 0, math.nan, Cost(money=0.1), "finished", "é", text="\x00")
        store.write(ended=[odd])
        assert timeless([store.trials()[odd.key][1]]) == timeless([odd])
    assert entry("sample").key == "sample"
