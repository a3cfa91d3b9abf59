"""Trajectories with tools: what ends them, what a model is told, what is paid, and what stops a call."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import (
    AnystepError,
    Budget,
    Cost,
    Run,
    Status,
    UsageError,
    drive,
    journal,
    procedure,
    reward,
    search,
    solve,
)
from anystep.errors import JournalError
from anystep.language.tools import Saying, Scripted, ToolProcess, asks, tool
from anystep.ledger import Ledger
from anystep.procedure import start, step
from anystep.testing import check_procedure, counted, process_checks
from anystep.testing.checks_process import some_keys
from anystep.testing.limits import Clock, unlimited
from tool_worlds import STORE, keeper, maze, store

ONE = search.sample(n=1)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def says(*turns: Saying | str) -> Scripted:
    """A model that takes these turns in order."""

    def policy(messages: Any) -> dict[Saying | str, float]:
        return {turns[sum(m["role"] == "assistant" for m in messages)]: 1.0}

    return Scripted(policy)


def run(*turns: Saying | str, tools: Any = (add,), budget: Budget | None = None, **options: Any) -> Run:
    made = Run(ToolProcess(says(*turns), "Go on.", tools, **options), ONE, budget)
    drive(made)
    return made


def results(made: Run) -> list[str]:
    """What the model was told by its tools."""
    assert made.answer is not None and made.answer.population is not None
    (messages,) = made.answer.population.states.messages()
    return [m["content"] for m in messages if m["role"] == "tool"]


def error(made: Callable[[], Run]) -> str:
    with pytest.raises(AnystepError) as caught:
        made()
    return str(caught.value)


PROCESSES = {
    "scripted": lambda: store(),
    "done at its cap": lambda: store(max_turns=2, at_cap="done"),
    "one call a turn": lambda: store(max_calls=1),
    "one call at once": lambda: store(at_once=1),
    "exchanges": lambda: store(unit="exchange"),
    "greedy": lambda: ToolProcess(Scripted(keeper, greedy=True), "Keep 1.", [add, *store().tools.values()], world={}),
    "a maze": lambda: maze(max_turns=3),
}


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROCESSES)
def test_it_is_a_process(name: str, check: Any) -> None:
    process = PROCESSES[name]()

    def hook() -> Any:
        """Counts what the model wrote, and the calls that were really made."""
        return _Both(process)

    check(process, hook)


class _Both:
    """The turns' work and the tools' calls as one count."""

    def __init__(self, process: ToolProcess) -> None:
        self.process, self.made = process, 0

    def __enter__(self) -> _Both:
        self.turns = counted(self.process)
        self.work = self.turns.__enter__()
        self.kept = dict(self.process.tools)
        for name, each in self.kept.items():
            if each.cost.calls:
                self.process.tools[name] = self._watched(each)
        return self

    def _watched(self, each: Any) -> Any:
        def function(*args: Any, **named: Any) -> Any:
            self.made += 1
            return each.function(*args, **named)

        return replace(each, function=function)

    def __exit__(self, *raised: Any) -> None:
        self.process.tools.update(self.kept)
        self.turns.__exit__(*raised)

    @property
    def evaluations(self) -> int:
        return self.work.evaluations

    @property
    def calls(self) -> int:
        return self.work.calls + self.made


def test_a_question_is_answered_with_a_tool() -> None:
    answer = solve("unused", model=ToolProcess(says(asks("add", a=1, b=2), "It is 3."), "1 + 2?", [add]))
    assert answer.value == answer.text == "It is 3."
    assert answer.population is not None
    assert answer.population.states.transcripts()[0] == (
        'user: 1 + 2?\nassistant calls add({"a": 1, "b": 2})\ntool: 3\nassistant: It is 3.'
    )


def test_a_step_is_a_turn_or_a_result() -> None:
    process = ToolProcess(says(asks("add", a=1, b=2) & asks("add", a=3, b=4), "3 and 7"), "Go on.", [add])
    reply, keys, lengths = process.start(some_keys(1), unlimited()), some_keys(1), []
    while reply.status[0] == Status.LIVE:
        reply = process.step(reply.states, keys, unlimited(), "step")
        lengths.append([m["role"] for m in reply.states.messages()[0]])
    assert lengths[-1] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [len(roles) for roles in lengths] == [2, 3, 4, 5]


def test_an_exchange_is_a_turn_with_its_results() -> None:
    turns = says(asks("add", a=1, b=2) & asks("add", a=3, b=4), asks("add", a=5, b=6), "ok")
    process = ToolProcess(turns, "Go on.", [add], unit="exchange")
    reply, keys, lengths = process.start(some_keys(1), unlimited()), some_keys(1), []
    while reply.status[0] == Status.LIVE:
        reply = process.step(reply.states, keys, unlimited(), "step")
        lengths.append(len(reply.states.messages()[0]))
    assert lengths == [4, 6, 7]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (asks("subtract", a=1), "Error: there is no tool 'subtract'; the tools are add."),
        (asks("add", a="x", b=1), "Error: wrong arguments for add: a: Input should be a valid integer"),
        (asks("add", a=1), "Error: wrong arguments for add: b: Field required."),
        (asks("add", a=1, b=2, c=3), "Error: wrong arguments for add: c: Extra inputs are not permitted."),
    ],
)
def test_what_is_asked_for_wrongly_is_told_and_costs_nothing(asked: Saying, told: str) -> None:
    made = run(asked, "I see.", tools=[tool(add.function, cost=Cost(money=1.0))])
    assert results(made)[0].startswith(told) and made.spent.money == 0
    assert made.answer is not None and made.answer.text == "I see."


def fails(how: str) -> str:
    """Raises what it is told to."""
    raise {"value": ValueError("line one\nline two"), "exit": SystemExit(3)}[how]


def test_an_exception_is_told_or_fails_the_state() -> None:
    assert results(run(asks("fails", how="value"), "ok", tools=[fails])) == ["Error: ValueError: line one line two"]
    assert results(run(asks("fails", how="exit"), "ok", tools=[fails])) == ["Error: SystemExit: 3"]
    said = error(lambda: run(asks("fails", how="value"), "ok", tools=[tool(fails, on_error="fail")]))
    assert "ValueError: line one line two" in said


def test_a_final_tool_ends_the_trajectory_when_it_goes_well() -> None:
    final = tool(add.function, name="submit", final=True)
    made = run(asks("submit", a="x", b=1), asks("submit", a=1, b=1) & asks("submit", a=5, b=5), tools=[final])
    assert made.answer is not None and made.answer.text == "2"
    assert results(made)[1:] == ["2", "Error: not called: the trajectory has ended."]


def test_calls_beyond_the_cap_are_told_so() -> None:
    calls = asks("add", a=1, b=1) & asks("add", a=2, b=2) & asks("add", a=3, b=3)
    made = run(calls, "ok", max_calls=2)
    assert results(made) == ["2", "4", "Error: not called: only 2 calls a turn are made."]


def test_at_the_cap_it_fails_before_the_call_or_is_done_after_it() -> None:
    turns = [asks("add", a=1, b=1)] * 3
    counting = tool(add.function, cost=Cost(calls=1))
    said = error(lambda: run(*turns, tools=[counting], max_turns=2))
    assert "max_turns=2" in said
    made = run(*turns, tools=[counting], max_turns=2, at_cap="done")
    assert made.answer is not None and made.answer.value is None and results(made) == ["2", "2"]


def test_an_empty_answer_is_none() -> None:
    made = run("")
    assert made.answer is not None and made.answer.value is None and made.answer.text == ""


def test_extract_reads_the_answer() -> None:
    made = run("It is 3.", extract=lambda text: int(text.split()[-1].rstrip(".")))
    assert made.answer is not None and made.answer.value == 3


def test_tools_are_paid_before_they_are_called() -> None:
    called: list[int] = []

    def buy(what: int) -> str:
        """Buy something."""
        called.append(what)
        return "bought"

    turns = [asks("buy", what=i) for i in range(6)]
    made = run(*turns, "ok", tools=[tool(buy, cost=Cost(money=1.0))], budget=Budget(money=3.5))
    assert called == [0, 1, 2] and made.spent.money == 3.0
    assert made.answer is not None and made.answer.stopped_because == "money"


@tool(world=True)
def count(n: int) -> Any:
    """Count one up."""
    return n + 1, n + 1


@tool(world=True)
def spoil(box: list[int]) -> Any:
    """Change the world in place, and keep no word of it."""
    box.append(1)
    return len(box), box


def test_worlds_are_copies() -> None:
    process = ToolProcess(says(*[asks("spoil")] * 2, "ok"), "Go on.", [spoil], world=[])
    (first,) = drive(Run(process, search.sample(n=3)))
    assert first.population is not None and first.population.states.worlds() == ([1, 1],) * 3
    assert process.first.world == "[]"


def test_a_world_may_be_a_value_of_one_s_own() -> None:
    made = run(asks("count"), asks("count"), "ok", tools=[count], world=5)
    assert made.answer is not None and made.answer.population is not None
    assert results(made) == ["6", "7"] and made.answer.population.states.worlds() == (7,)


@tool(world=True)
def forgets(n: int) -> Any:
    """Returns one thing where two are due."""
    return n


@tool(world=True)
def unwritable(n: int) -> Any:
    """Returns a world that is no JSON."""
    return 1, object()


def test_a_tool_that_breaks_its_contract_fails_the_state_and_says_how() -> None:
    assert "return result, world" in error(lambda: run(asks("forgets"), tools=[forgets], world=1))
    assert "no JSON" in error(lambda: run(asks("unwritable"), tools=[unwritable], world=1))
    assert "cannot read its world" in error(lambda: run(asks("count"), tools=[count], world="five"))


def test_async_tools_are_awaited() -> None:
    async def fetch(page: str) -> str:
        """Fetch a page."""
        await asyncio.sleep(0)
        return f"<{page}>"

    assert results(run(asks("fetch", page="a"), "ok", tools=[fetch])) == ["<a>"]


def test_a_call_that_hangs_is_cut_by_its_timeout() -> None:
    release = threading.Event()

    def hang() -> None:
        """Never come back."""
        release.wait()

    made = run(asks("hang"), "ok", tools=[tool(hang, timeout=0.05)])
    release.set()
    assert results(made) == ["Error: hang timed out after 0.05 seconds."]


def test_an_async_call_that_hangs_is_really_cancelled() -> None:
    ended = threading.Event()

    async def hang() -> None:
        """Never come back."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    made = run(asks("hang"), "ok", tools=[tool(hang, timeout=0.05)])
    assert results(made)[0].startswith("Error: hang timed out")
    assert ended.wait(10)


def test_a_run_that_is_cancelled_does_not_wait_for_its_calls() -> None:
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        """Never come back."""
        begun.set()
        release.wait()

    made = Run(ToolProcess(says(asks("hang"), "ok"), "Go on.", [tool(hang, timeout=None)]), ONE)
    driver = threading.Thread(target=drive, args=(made,))
    driver.start()
    assert begun.wait(10)
    made.cancel()
    driver.join(10)
    ended = not driver.is_alive()
    release.set()
    driver.join()
    assert ended and made.answer is not None and made.answer.stopped_because == "cancelled"


def test_a_deadline_does_not_wait_for_its_calls() -> None:
    clock, release = Clock(), threading.Event()

    def hang() -> None:
        """Take an hour."""
        clock.now += 3600
        release.wait()

    process = ToolProcess(says(asks("hang"), "ok"), "Go on.", [tool(hang, timeout=None)])
    made = Run(process, ONE, ledger=Ledger(Budget(seconds=60), clock=clock))
    drive(made)
    release.set()
    assert made.answer is not None and made.answer.stopped_because == "seconds"


def test_calls_of_different_trajectories_run_side_by_side() -> None:
    meeting = threading.Barrier(4)

    def meet() -> str:
        """Wait for three others."""
        meeting.wait(10)
        return "met"

    process = ToolProcess(says(asks("meet"), "ok"), "Go on.", [meet], at_once=4)
    (answer,) = drive(Run(process, search.sample(n=4)))
    assert answer.population is not None and "tool: met" in answer.population.states.transcripts()[3]


def test_a_pending_call_has_one_child_and_is_made_once() -> None:
    called: list[int] = []

    def note(what: int) -> str:
        """Note a number."""
        called.append(what)
        return "noted"

    @procedure(decide=search.first_finished)
    def branching() -> Any:
        population = yield from start(1)
        sizes = [1]
        for _ in range(4):
            population = yield from step(population, branch=3)
            sizes.append(len(population))
        assert sizes == [1, 3, 3, 9, 9]  # a turn has three children, each with one result
        return population

    process = ToolProcess(says(*[asks("note", what=1)] * 2, "ok"), "Go on.", [note])
    process.branches = True
    drive(Run(process, branching()))
    assert len(called) == 3 + 9


def test_states_are_written_down_as_json_and_read_in_another_process() -> None:
    one, other = store(), store()
    reply = one.start(some_keys(3), unlimited())
    for _ in range(3):
        live = np.flatnonzero(reply.status == Status.LIVE)
        reply = one.step(reply.states.take(live), some_keys(len(live)), unlimited(), "step")
    data = one.dump(reply.states)
    assert json.loads(data.partition(b"\n")[0]) and other.load(data).rows == reply.states.rows


def test_results_are_shown_to_who_watches_under_their_trajectory_s_key() -> None:
    shown: list[tuple[int, str]] = []
    process = ToolProcess(says(asks("add", a=1, b=2), "ok"), "Go on.", [add])
    made = Run(process, ONE, show=lambda key, piece: shown.append((key, piece)))
    drive(made)
    assert shown and "[add: 3]" in shown[0][1] and {key for key, _ in shown} <= set(made.books.latest.key.tolist())


def held(states: Any) -> Any:
    return [world.get("a", 0) / 3 for world in states.worlds()]


@pytest.mark.parametrize(
    "method",
    [search.first_finish(n=4), search.beam(width=2, reward=reward(held), branch=2)],
    ids=["first_finish", "beam"],
)
def test_methods_keep_their_laws_on_it(method: Any) -> None:
    """Merged, stopped by every budget, cancelled, replayed and taken up again: the same answer, at the same cost."""
    tools = [replace(each, cost=Cost()) for each in STORE]
    process = ToolProcess(Scripted(keeper), "Keep 1.", tools, world={}, max_turns=2, unit="exchange")
    check_procedure(method, process)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ToolProcess(says("x"), "Go on.", []), "there are none"),
        (lambda: ToolProcess(says("x"), "Go on.", [add, add]), "two tools are called 'add'"),
        (lambda: ToolProcess(says("x"), "Go on.", add), "a list of functions"),
        (lambda: ToolProcess(says("x"), [], [add]), "is no prompt"),
        (lambda: ToolProcess(says("x"), [{"content": "x"}], [add]), "is no prompt"),
        (lambda: ToolProcess(says("x"), "x", [add], max_turns=0), "max_turns=0"),
        (lambda: ToolProcess(says("x"), "x", [add], at_cap="stop"), "'failed' or 'done'"),
        (lambda: ToolProcess(says("x"), "x", [add], unit="turn"), "'step' or 'exchange'"),
        (lambda: ToolProcess(says("x"), "x", [add], world=object()), "a JSON value"),
        (lambda: ToolProcess(says("x"), "x", [add], temperature=1.0), "where the turns are made"),
        (lambda: ToolProcess(object(), "x", [add]), "give a loaded engine"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make()


def test_a_policy_s_probabilities_sum_to_one() -> None:
    process = ToolProcess(Scripted(lambda messages: {"a": 0.5, "b": 0.4}), "Go on.", [add])
    with pytest.raises(UsageError, match="sum to 1"):
        drive(Run(process, ONE))


@tool
def subtract(a: int, b: int) -> int:
    """Another tool."""
    return a - b


@pytest.mark.parametrize(
    "other",
    [{"messages": "Else?"}, {"tools": [subtract]}, {"world": 1}, {"max_turns": 3}, {"max_calls": 2},
     {"at_cap": "done"}, {"extract": str.upper}],
)  # fmt: skip
def test_a_journal_is_of_one_question_with_its_tools_and_world(other: dict[str, Any], tmp_path: Path) -> None:
    given: dict[str, Any] = {"messages": "What?", "tools": [add]}
    turns, path = says("4"), tmp_path / "j"
    drive(Run(ToolProcess(turns, **given), search.sample(n=1), journal=journal.open(path)))
    assert journal.resume(path, ToolProcess(turns, **given), search.sample(n=1)).result().text == "4"
    with pytest.raises(JournalError, match="belongs to another run: its process settings"):
        journal.resume(path, ToolProcess(turns, **(given | other)), search.sample(n=1))
