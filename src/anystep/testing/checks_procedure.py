"""What every procedure must do on a process that it supports; `check_procedure(method, process)` runs all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anystep import search
from anystep.answer import AllFailed
from anystep.drive import adrive, drive
from anystep.errors import Unsupported
from anystep.ledger import Budget
from anystep.procedure import Exploring, Method
from anystep.process import Process, Status, Stepped
from anystep.run import Run
from anystep.testing.cases import FIGURES, Case, ProcedureCheck, case, parts
from anystep.testing.checks_journal import journal_checks
from anystep.testing.checks_process import contents, own_hook, same_states
from anystep.testing.counting import Hook
from anystep.testing.limits import Clock, CountingLedger
from anystep.testing.runs import finish, outcome, same_outcome

procedure_checks: list[ProcedureCheck] = [*journal_checks]


def check_procedure(
    method: Method, process: Process, hook: Hook | None = None, budget: Budget | None = None, most: int = 60
) -> None:
    """Run every check of `procedure_checks`; AssertionError says which law is broken, and where.

    hook: counts the real work of the process, of rewards and of editors (see `counting`); by default the calls of their
    methods `forward`; only rewards and editors that pay need one. budget: for a method that would never end on this
    process. most: how many stops are tried of each kind; every one of a run that has no more.
    """
    for check in procedure_checks:
        check(case(method, process, hook, budget, most))


def _check(function: ProcedureCheck) -> ProcedureCheck:
    procedure_checks.append(function)
    return function


@_check
def equal_values_print_and_compare_equal(case: Case) -> None:
    """A method is a value: printable without addresses, comparable, hashable; running it changes nothing of it."""
    copy, before = replace(case.method), repr(case.method)
    finish(case.run())
    assert copy == case.method and hash(copy) == hash(case.method), f"{case.method} is not equal to its copy"
    assert repr(case.method) == before == repr(copy), f"{before} prints in two ways"
    assert " at 0x" not in before, f"{before} prints an address; give its parts a name"


@_check
def same_seed_same_answer(case: Case) -> None:
    """A run is a function of its seed; another seed has other keys."""
    one, same, other = case.run(seed=3), case.run(seed=3), case.run(seed=4)
    finish(one, same, other)
    same_outcome(one, same, "running it again")
    a, b = (r.answer.population if r.answer else None for r in (one, other))
    if a is not None and b is not None:
        assert set(a.key.tolist()).isdisjoint(b.key.tolist()), f"{case.method}: two seeds share a key"


@_check
def books_are_consistent(case: Case) -> None:
    """Ids name the family's states, parents come before children, weights sum to one (or are all zero), and the answer
    is a finished state."""
    run = case.run()
    finish(run)
    family = run.books.family
    assert all(parent < node for node, parents in enumerate(family.parents) for parent in parents), (
        "a parent is younger"
    )
    if run.answer is None or run.answer.population is None:
        return
    population, answer = run.answer.population, run.answer
    total = population.weights.sum()
    assert np.isclose(total, 1) or total == 0, f"{case.method}: weights sum to {total}"
    if case.process.horizon is not None:
        for node, status in zip(population.id.tolist(), population.status.tolist(), strict=True):
            assert family.status[node] in (status, Status.DONE), f"{case.method}: state {node} has another status"
    if answer.row is not None:
        assert population.done[answer.row], f"{case.method}: it answers with a state that is not done"


@_check
def drivers_agree(case: Case) -> None:
    """Sync, async, by hand, and merged with runs of other methods and seeds: the same states, answer and cost."""
    sync, others = case.run(), [case.run(seed=1), case.run(), case.run(seed=2)]
    finish(sync)
    alone = [case.run(seed=1), case.run(seed=2)]
    for run in alone:
        finish(run)
    by_hand = case.run()
    while by_hand.calls:
        replies = [call.perform() for call in by_hand.calls]
        try:
            by_hand.tell(replies)
        except AllFailed:
            break
    asynchronous = case.run()
    try:
        asyncio.run(_await(asynchronous))
    except AllFailed:
        assert sync.error is not None, f"{case.method}: all failed, but only when awaited"
    extra = [Run(case.process, search.sample(n=3), seed=9)] if case.process.horizon is not None else []
    finish(*others, *extra)
    same_outcome(sync, asynchronous, "driving it with adrive")
    same_outcome(sync, others[1], "merging it with other runs")
    if len(list(by_hand.journal)) == len(list(sync.journal)):
        _same_answer(sync, by_hand, "performing its calls by hand")
    for one, run in zip((others[0], others[2]), alone, strict=True):
        same_outcome(one, run, "merging it with other runs")


async def _await(run: Run) -> None:
    await adrive(run)


def _same_answer(one: Run, other: Run, what: str) -> None:
    """As `same_outcome`, but for the number of calls: unmerged, a run's simultaneous asks are calls of their own."""
    a, b = outcome(one), outcome(other)
    assert a | {"cost": a["cost"][:3]} == b | {"cost": b["cost"][:3]}, f"{one.method}: {what} changes its outcome"


@_check
def the_ledger_is_the_work(case: Case) -> None:
    """Evaluations and calls seen by the hook are those in the ledger, judges and editors included."""
    with case.hook() as work:
        run = case.run()
        finish(run)
    _same_work(case, run.spent, work, "alone")
    _same_work(case, sum(run.ledger.by.values(), start=type(run.spent)()), work, "summed over who was paid")
    with case.hook() as work:
        runs = [case.run(seed=seed) for seed in range(3)]
        finish(*runs)
    paid = sum(r.spent.evaluations for r in runs)
    assert paid == work.evaluations, f"{case.method}, three merged runs: paid {paid}, the hook saw {work.evaluations}"


def _same_work(case: Case, spent: Any, work: Any, what: str) -> None:
    paid, done = (spent.evaluations, spent.calls), (work.evaluations, work.calls)
    assert paid == done, f"{case.method} on {case.process}, {what}: paid (evaluations, calls) {paid}, counted {done}"


@_check
def rewards_are_paid_once(case: Case) -> None:
    """No state is handed to the same reward twice."""
    run, asked = case.run(), 0
    while run.calls:
        asked += sum(len(call.states) for call in run.calls if call.verb == "score")
        try:
            run.tell([call.perform() for call in run.calls])
        except AllFailed:
            break
    known = len(run.books.family.scores)
    assert asked == known, f"{case.method}: {asked} states were scored, {known} different ones"


@_check
def a_budget_stops_it_anywhere(case: Case) -> None:
    """Under every budget from 1 to what it costs, of each figure that it spends: never overspent, the ledger true, the
    generator closed, an answer where a state has finished, and the same states as far as it came."""
    whole = case.run()
    finish(whole)
    for figure in FIGURES:
        full = getattr(whole.spent, figure)
        closed: list[int] = []
        caps = case.stops(full)
        budgets = [replace(case.budget, **{figure: cap}) for cap in caps]
        runs = [case.run(b, method=closing(case.method, closed)) for b in budgets]
        _stopped(case, runs, closed, whole, f"Budget({figure}=...)")
        for cap, run in zip(caps, runs, strict=True):
            spent = getattr(run.spent, figure)
            assert spent <= cap, f"{case.method}: Budget({figure}={cap}) and {spent} were spent"
        if full and not case.budget.caps():
            exact = case.run(Budget(**{figure: full}), reserve=0.0)
            finish(exact)
            same_outcome(whole, exact, f"a budget of exactly its cost, {full} {figure},")


def closing(method: Method, closed: list[int]) -> Method:
    """The method, noting in `closed` when its generator ends or is closed."""

    def body(**options: Any) -> Exploring:
        try:
            return (yield from method.body(**options))
        finally:
            closed.append(1)

    return replace(method, body=body)


def _stopped(case: Case, runs: Sequence[Run], closed: list[int], whole: Run, what: str) -> None:
    """Drive runs that will be stopped, and check what must hold wherever they were."""
    with case.hook() as work:
        finish(*runs)
    paid = sum(run.spent.evaluations for run in runs)
    assert paid == work.evaluations, f"{case.method}, {what}: paid {paid} evaluations, the hook saw {work.evaluations}"
    assert len(closed) == len(runs), f"{case.method}, {what}: {len(runs) - len(closed)} generators were left open"
    for run in runs:
        _same_as_far(run, whole, what)
        if run.answer is None:
            assert run.error is not None, f"{case.method}, {what}: a run has neither answer nor error"
        elif run.finished:
            row, population = run.answer.row, run.answer.population
            assert row is not None and population is not None, (
                f"{case.method}, {what}: {run.finished} finished, no answer"
            )
            assert population.done[row], f"{case.method}, {what}: it answers with a state that is not done"


def _same_as_far(run: Run, whole: Run, what: str) -> None:
    """A run with less to spend did what the whole run did, until it was refused."""
    for told, full in zip(run.journal, whole.journal, strict=False):
        if told.refused:
            return
        for reply, other in zip(told.replies, full.replies, strict=True):
            if isinstance(reply, Stepped) and isinstance(other, Stepped):
                same = same_states(run.process, reply.states, other.states)
                assert same, f"{run.method}, {what}: a budget changes states that it did pay for"


@_check
def cancelling_stops_it_anywhere(case: Case) -> None:
    """Cancelled at any payment, inside steps and scores: nothing is paid from there on, the ledger is true, and what
    has finished answers."""
    payments = _payments(case)
    whole, runs, closed = case.run(), [], list[int]()
    finish(whole)
    stops = [k - 1 for k in case.stops(payments)]
    for stop in stops:
        ledger = CountingLedger(case.budget)
        ledger.before = _at(stop, ledger.cancel)
        runs.append(case.run(ledger=ledger, method=closing(case.method, closed)))
    _stopped(case, runs, closed, whole, "cancelled at a payment")
    for stop, run in zip(stops, runs, strict=True):
        assert run.answer is None or run.answer.stopped_because == "cancelled", f"{case.method}: payment {stop}"


@_check
def cancelling_between_asks_stops_it(case: Case) -> None:
    """Cancelled before any round, it does no more paid work, closes and answers from what has finished."""
    whole = case.run()
    finish(whole)
    for at in [k - 1 for k in case.stops(len(list(whole.journal)))]:
        run = case.run()
        for _ in range(at):
            run.tell([call.perform() for call in run.calls])
        spent, finished = run.spent, run.finished
        run.cancel()
        finish(run)
        assert run.spent.same(spent), f"{case.method}: cancelled at round {at}, and spent {run.spent} after {spent}"
        assert run.answer is not None or run.error is not None, f"{case.method}: cancelled at round {at}, left open"
        if finished and run.answer is not None:
            assert run.answer.row is not None, f"{case.method}: cancelled at round {at}, {finished} finished, no answer"


@_check
def a_deadline_stops_it_anywhere(case: Case) -> None:
    """Time that runs out at any payment stops it there."""
    whole, runs, closed = case.run(), [], list[int]()
    finish(whole)
    for stop in [k - 1 for k in case.stops(_payments(case))]:
        clock = Clock()
        ledger = CountingLedger(replace(case.budget, seconds=10), clock=clock)
        ledger.before = _at(stop, lambda clock=clock: setattr(clock, "now", 11.0))  # type: ignore[misc]
        runs.append(case.run(ledger=ledger, method=closing(case.method, closed)))
    _stopped(case, runs, closed, whole, "out of time at a payment")
    for run in runs:
        assert run.answer is None or run.answer.stopped_because == "seconds", f"{case.method}: {run.answer}"
        assert run.spent.seconds == 11.0, f"{case.method}: the clock says 11 seconds, the ledger {run.spent.seconds}"


def _payments(case: Case) -> int:
    ledger = CountingLedger(case.budget)
    finish(case.run(ledger=ledger))
    return ledger.payments


def _at(stop: int, act: Callable[[], None]) -> Callable[[int], None]:
    return lambda k: act() if k == stop else None


def check_prefix(make: Callable[[int], Method], process: Process, small: int = 4, large: int = 8) -> None:
    """`make(4)`'s states are the first of `make(8)`'s: pools nest. For methods whose states are independent."""
    runs = [Run(process, make(n)) for n in (small, large)]
    finish(*runs)
    one, other = (r.answer.population if r.answer else None for r in runs)
    assert one is not None and other is not None, f"{make(small)}: no population"
    held = contents(process, other.states)[:small]
    assert contents(process, one.states) == held, f"{make(small)} is no prefix of {make(large)}"
    assert one.key.tolist() == other.key.tolist()[:small], f"{make(small)}: keys are no prefix of {make(large)}'s"


def check_refusal(method: Method, process: Process, *, advises: str = "") -> None:
    """The method refuses the process before any work, with one line that names what would work (`advises`)."""
    hook = own_hook(process, *parts(method))
    try:
        with hook() as work:
            drive(Run(process, method))
    except Unsupported as refusal:
        text = str(refusal)
        assert "\n" not in text and advises in text, f"{method} refuses {process} with {text!r}"
        assert work.calls == 0, f"{method} refuses {process} after {work.calls} calls"
        return
    raise AssertionError(f"{method} does not refuse {process}")
