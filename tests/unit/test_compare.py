"""Comparisons: merged runs are the runs they would be alone, costs are true, failures count, budgets choose fairly."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anystep import Budget, UsageError, search
from anystep.bench import Comparison, Entry, Interval, Point, Progress, Report, Trial, compare, entry, equal_cost
from anystep.bench.trial import not_run
from anystep.ledger import Cost, Limit
from anystep.process import Stepped
from toy_adder import PROMPT, Adder, Right, adder_for, adding

TASKS = adding(6)


def best(label: str = "best", ns: tuple[int, ...] = (1, 4)) -> Entry:
    return Entry(label, lambda n, task: search.best_of_n(n=n, reward=Right(task.meta["total"])), ns)


def filtering(ns: tuple[int, ...] = (4,)) -> Entry:
    def family(n: int, task: Any) -> Any:
        return search.particle_filter(n=n, potential=Right(task.meta["total"]).log_odds())

    return Entry("filter", family, ns)


def timeless(trial: Trial) -> Trial:
    return replace(trial, cost=replace(trial.cost, seconds=0.0))


def test_merged_runs_answer_and_pay_as_they_would_alone() -> None:
    merged = compare([best(), filtering()], TASKS, adder_for, seeds=(0, 1))
    alone = compare([best(), filtering()], TASKS, adder_for, seeds=(0, 1), rows=1)
    assert [timeless(t) for t in merged.trials] == [timeless(t) for t in alone.trials]
    assert len(merged.trials) == 2 * len(TASKS) * (
        1 + 2 + 2 + 1
    )  # greedy, self-consistency 1 and 4, best 1 and 4, filter 4
    assert len({t.answer for t in merged.trials}) > 6  # right and wrong ones


def test_runs_go_in_batches_no_wider_than_the_rows_in_flight() -> None:
    widths: list[int] = []

    class Watched(Adder):
        def start(self, keys: Any, limit: Limit) -> Stepped:
            widths.append(len(keys))
            return super().start(keys, limit)

    comparison = Comparison([best(ns=(4,))], TASKS, lambda t, greedy: Watched(t.meta["total"], 0.5, greedy), rows=8)
    assert [len(batch) for batch in comparison._batches() if batch[0].n == 4][:3] == [2, 2, 2]
    wide = Comparison([best(ns=(64,))], TASKS, adder_for, rows=8)
    assert [len(batch) for batch in wide._batches() if batch[0].n == 64][:6] == [1] * 6  # a run is never split
    comparison.run()
    assert max(widths) <= 8


def test_costs_are_true_rewards_included() -> None:
    report = compare([best(ns=(1, 4, 16))], TASKS, adder_for)
    tokens = {(p.label, p.n): p.tokens for p in report.points}
    write, read = PROMPT + 3, 2
    assert tokens["greedy", 1] == write
    assert [tokens["self_consistency", n] for n in (1, 4, 16)] == [write, 4 * write, 16 * write]
    assert [tokens["best", n] for n in (1, 4, 16)] == [n * (write + read) for n in (1, 4, 16)]
    assert {p.generated for p in report.points if p.n == 4} == {12}


def test_greedy_and_self_consistency_are_always_there_and_greedy_runs_once() -> None:
    report = compare([best(ns=(2, 8))], TASKS, adder_for)
    assert [(p.label, p.n) for p in report.points] == [
        ("greedy", 1), ("self_consistency", 2), ("self_consistency", 8), ("best", 2), ("best", 8),
    ]  # fmt: skip
    again = compare([entry("greedy"), entry("self_consistency", (2,)), best(ns=(2,))], TASKS, adder_for)
    assert again.labels == ("greedy", "self_consistency", "best")


def test_an_item_s_seed_is_shared_by_methods_so_that_pools_nest() -> None:
    pools = {}
    for method in (search.self_consistency(n=4), search.best_of_n(n=8, reward=Right(12))):
        report = compare([Entry("m", lambda n, task, m=method: m, (4,))], TASKS[:1], adder_for)
        pools[method.name] = report.trials[-1].seed
    assert set(pools.values()) == {0}
    a, b = (compare([best(ns=(4,))], TASKS, adder_for, seeds=(s,)).trials for s in (0, 1))
    assert [t.answer for t in a] != [t.answer for t in b]


def test_unscored_is_nan_and_left_out_and_counted() -> None:
    report = compare([best(ns=(4,))], adding(6, unscored=frozenset({1, 2})), adder_for)
    point = report.points[-1]
    assert point.unscored == 2 and point.items == 6
    assert point.accuracy.value in {k / 4 for k in range(5)}
    scores = [t.score for t in report.trials if t.label == "best"]
    assert [math.isnan(s) for s in scores] == [False, True, True, False, False, False]
    assert report.record()["trials"][-5]["score"] is None


class Failing(Adder):
    """Every state of an odd total fails at its first step."""

    def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
        stepped = super().step(states, keys, limit, until)
        if self.total % 2:
            rows = range(len(states))
            return replace(stepped, status=np.full(len(states), 2, np.int8), errors={i: "no luck" for i in rows})
        return stepped


def test_a_failed_run_counts_as_no_answer_and_the_others_go_on() -> None:
    report = compare([best(ns=(4,))], TASKS, lambda t, greedy: Failing(t.meta["total"], 1.0, greedy))
    point = report.points[-1]
    assert (point.failed, point.unscored, point.runs) == (3, 0, 6)
    assert point.accuracy.value == 0.5  # the empty text is scored by the task, which says 0
    failed = next(t for t in report.trials if t.failed)
    assert failed.error == "no luck" or "no luck" in failed.error
    assert failed.cost.tokens > 0 and failed.stopped_because == "failed"


def test_an_item_that_cannot_be_run_is_unscored_with_its_error() -> None:
    def process_of(task: Any, greedy: bool) -> Adder:
        if task.id == "sum-2":
            raise UsageError("the prompt is longer than the context")
        return adder_for(task, greedy)

    report = compare([best(ns=(1,))], TASKS, process_of)
    lost = [t for t in report.trials if t.item == "sum-2"]
    assert all(math.isnan(t.score) and t.failed and "longer than the context" in t.error for t in lost)
    assert report.points[0].tokens == PROMPT + 3  # the mean is over what ran

    def never(task: Any, greedy: bool) -> Adder:
        raise UsageError("there is no engine")

    with pytest.raises(UsageError, match="not one of 6 items can be run: there is no engine"):
        compare([best()], TASKS, never)


def test_a_hard_budget_holds_for_each_run() -> None:
    budget = Budget(tokens=40)
    report = compare([best(ns=(16,))], TASKS, adder_for, budget=budget)
    assert all(t.cost.tokens <= 40 for t in report.trials)
    stopped = {t.label: t.stopped_because for t in report.trials}
    assert stopped["greedy"] == "finished" and stopped["best"] == "tokens"
    assert report.budget == {"tokens": 40}


def test_caches_are_dropped_before_each_batch() -> None:
    dropped: list[str] = []

    class Forgetful(Adder):
        def forget(self) -> None:
            dropped.append(self.name)

    def process_of(task: Any, greedy: bool) -> Adder:
        return Forgetful(task.meta["total"], 0.5, greedy)

    report = compare([best(ns=(1, 4))], TASKS, process_of)
    assert len(dropped) == len(report.points) == 5
    dropped.clear()
    compare([best(ns=(1, 4))], TASKS, process_of, rows=4)
    assert len(dropped) == 3 * 2 + 2 * 6  # six runs of one state, two batches; six of four states, a batch each


def test_progress_rises_to_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Progress] = []
    monkeypatch.setattr(sys.modules["anystep.bench.desk"], "BEAT", 0.0)  # every piece that is written is told
    comparison = Comparison([best()], TASKS, adder_for, progress=seen.append)
    report = comparison.run()
    done, tokens = [p.done for p in seen], [p.tokens for p in seen]
    assert done == sorted(done) and done[0] == 0 and done[-1] == comparison.total == 6 * 5
    assert tokens == sorted(tokens) and tokens[-1] == sum(t.cost.tokens for t in report.trials)
    assert len(set(tokens)) > 4 * len(report.points)  # in the middle of a batch too


def test_a_cancelled_comparison_keeps_whole_runs_only() -> None:
    comparison = Comparison([best(ns=(1, 4, 16))], TASKS, adder_for)
    comparison.progress = lambda p: comparison.cancel() if (p.label, p.n) == ("best", 4) else None
    report = comparison.run()
    assert not report.complete
    assert {(t.label, t.n) for t in report.trials} == {
        ("greedy", 1), ("self_consistency", 1), ("best", 1), ("self_consistency", 4),
    }  # fmt: skip
    assert all(t.stopped_because == "finished" for t in report.trials)


def test_json_brings_back_the_report_and_its_points() -> None:
    report = compare([best()], adding(4, frozenset({0})), adder_for, title="t", model="m", task="k")
    again = Report.from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert again.labels == report.labels and again.hardware == report.hardware
    assert [p.accuracy for p in again.points] == [p.accuracy for p in report.points]
    assert "NaN" not in report.to_json()
    assert {"anystep", "python", "numpy"} <= set(report.versions)
    for broken in ("", "{}", "[1]", '{"schema": 1}', report.to_json().replace('"schema": 1', '"schema": 9')):
        with pytest.raises(UsageError):
            Report.from_json(broken)


def point(label: str, n: int, tokens: float, greedy: bool = False, oracle: bool = False) -> Point:
    level = Interval(0.5, 0.4, 0.6)
    return Point(label, n, "", greedy, oracle, 1, 1, level, None, tokens, tokens, 1, 1, 0, 0, 0, False, {})


def test_equal_cost_takes_the_largest_n_that_fits() -> None:
    points = [
        point("greedy", 1, 10, greedy=True),
        *(point("vote", n, 10 * n) for n in (1, 4, 16)),
        *(point("dear", n, 30 * n) for n in (1, 4, 16)),
        *(point("oracle", n, 25 * n, oracle=True) for n in (1, 4, 16)),
    ]
    table = equal_cost(points, budgets=(5, 40, 120, 1000))
    chosen = [{k: p.n if p else None for k, p in row.best.items()} for row in table]
    assert chosen == [
        {"greedy": None, "vote": None, "dear": None, "oracle": None},
        {"greedy": 1, "vote": 4, "dear": 1, "oracle": 1},
        {"greedy": 1, "vote": 4, "dear": 4, "oracle": 4},
        {"greedy": 1, "vote": 16, "dear": 16, "oracle": 16},
    ]
    assert [row.budget for row in equal_cost(points)] == [30, 120, 480]  # what the dearest costs at each n
    assert [row.budget for row in equal_cost([point("a", 1, 1234.5)])] == [1300]


def test_an_entry_reads_a_method_s_text() -> None:
    made = entry("best_of_n(reward=equations)", (1, 4))
    assert made.ns == (1, 4) and not made.oracle
    assert repr(made.family(4, TASKS[0])).startswith("best_of_n(n=4, reward=")
    assert entry("best_of_n(n=7, reward=equations)").ns == (7,)
    assert repr(entry("beam(reward=equations, branch=2)", (3,)).family(3, TASKS[0])).startswith("beam(width=3")
    assert repr(entry("mcts(reward=equations)").family(5, TASKS[0])).count("rounds=5") == 1
    assert entry("best_of_n(reward=oracle)").oracle
    assert entry("greedy", (1, 4)).ns == (1,) and entry("greedy").greedy


@pytest.mark.parametrize(
    "text",
    [
        "best_of_n(",
        "2 + 2",
        "best_of_n(16)",
        "best_of_n(n='x', reward=equations)",
        "__import__('os')",
        "a.b(n=1)",
        "f(**x)",
    ],
)
def test_a_text_that_is_no_method_says_what_was_meant(text: str) -> None:
    with pytest.raises(UsageError, match=r"best_of_n\(|whole number"):
        entry(text)


@pytest.mark.parametrize("ns", [(), (0,), (-1, 4), (1.5,), (True,)])
def test_sizes_are_whole_numbers_from_one(ns: Any) -> None:
    with pytest.raises(UsageError, match="whole numbers"):
        Entry("x", lambda n, task: search.sample(n=n), ns)


def test_what_cannot_be_compared_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="labels repeat"):
        Comparison([best(), best()], TASKS, adder_for)
    with pytest.raises(UsageError, match="no method 'best_of_m'"):
        Comparison([entry("best_of_m(reward=equations)")], TASKS, adder_for)
    with pytest.raises(UsageError, match="needs an entry, an item"):
        Comparison([best()], [], adder_for)


def test_an_item_or_seed_that_repeats_is_run_once() -> None:
    report = compare([best(ns=(1,))], [*TASKS[:2], TASKS[0]], adder_for, seeds=(0, 1, 0))
    assert report.complete and len(report.trials) == 3 * 2 * 2 and len(report.items) == 2
    with pytest.raises(UsageError, match="two items are called 'sum-0'"):
        compare([best()], [TASKS[0], replace(TASKS[0], prompt="another")], adder_for)


def test_a_trial_survives_its_record() -> None:
    lost = not_run("a", 4, TASKS[0], 3, "why")
    again = Trial.from_record(lost.record())
    assert math.isnan(again.score) and replace(again, score=0.0) == replace(lost, score=0.0)
    kept = Trial("a", 1, "m", "i", 0, 1.0, Cost(prompt=3, generated=4), "finished", "12")
    assert Trial.from_record(kept.record()) == kept
