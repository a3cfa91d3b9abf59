"""What every process must do; `check_process(process)` runs all of it, `process_checks` names each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys
from anystep.ledger import JointLimit, Ledger, Limit
from anystep.process import Process, Status, Stepped
from anystep.testing.counting import Hook, counted
from anystep.testing.limits import RefusesAt, RefusesRows, unlimited

ROWS = 5
PATIENCE = 40  # steps that a check takes at most, of a process that may be endless

ProcessCheck = Callable[[Process, Hook], None]
process_checks: list[ProcessCheck] = []


def check_process(process: Process, hook: Hook | None = None) -> None:
    """Run every check of `process_checks`; AssertionError says which law is broken, and where.

    hook: opens a context that counts the process's real work (see `counting`); by default the calls of its method
    `forward`, looked for in `process.process` and `process.model` too. Raises UsageError where there is neither.
    """
    for check in process_checks:
        check(process, hook or own_hook(process))


def own_hook(*owners: Any) -> Hook:
    """Counts the calls of the owners' `forward`."""
    return lambda: counted(*owners)


def _check(function: ProcessCheck) -> ProcessCheck:
    process_checks.append(function)
    return function


def some_keys(n: int = ROWS, seed: int = 0) -> Keys:
    """n keys as a run would give them."""
    return lineage.roots(seed, (), np.arange(n))


def children_of(keys: Keys, ordinal: int = 0) -> Keys:
    return lineage.children(keys, 7, ordinal)


def contents(process: Process, states: Any) -> list[Any]:
    """What each state holds, comparable: its bytes where the process can dump, else its answer and text."""
    rows = [states.take(np.array([i])) for i in range(len(states))]
    try:
        return [process.dump(row) for row in rows]
    except Unsupported:
        return [(process.answers(row)[0], process.texts(row)[0]) for row in rows]


def same_states(process: Process, one: Any, other: Any) -> bool:
    """Whether two batches hold the same states in the same order."""
    try:
        return process.dump(one) == process.dump(other)
    except Unsupported:
        return contents(process, one) == contents(process, other)


def same_reply(process: Process, one: Stepped, other: Stepped, what: str) -> None:
    """Assert that two replies hold the same states and errors exactly, and the same books to float32 rounding."""
    assert contents(process, one.states) == contents(process, other.states), f"{process.name}: {what} changes a state"
    for book in ("status", "logp", "logw"):
        a, b = getattr(one, book), getattr(other, book)
        assert np.allclose(a, b, rtol=1e-5, atol=1e-4), f"{process.name}: {what} changes {book}: {a} and {b}"
    assert dict(one.errors) == dict(other.errors), f"{process.name}: {what} changes the errors"


def trail(process: Process, keys: Keys) -> list[tuple[Stepped, Keys]]:
    """The start and each step after it, with the keys that made it; rows that ended are dropped."""
    reply = process.start(keys, unlimited())
    found = [(reply, keys)]
    while len(found) <= min(process.horizon or PATIENCE, PATIENCE):
        live = np.flatnonzero(reply.status == Status.LIVE)
        if len(live) == 0:
            break
        keys = children_of(keys[live])
        reply = process.step(reply.states.take(live), keys, unlimited(), "step")
        found.append((reply, keys))
    return found


def bounded(process: Process) -> bool:
    return process.horizon is not None


def begun(process: Process) -> tuple[Any, Keys]:
    """Live states to step, and the keys to step them with."""
    reply = process.start(some_keys(), unlimited())
    live = np.flatnonzero(reply.status == Status.LIVE)
    assert len(live), f"{process.name}: no state is live after start"
    return reply.states.take(live), children_of(some_keys()[live])


@_check
def replies_have_one_row_a_state(process: Process, hook: Hook) -> None:
    """Books are float64 and int8 arrays with a row a state; errors belong to failed rows; names and kinds are known."""
    assert isinstance(process.name, str) and process.name, "a process needs a name for its costs"
    assert process.logp in ("mass", "density", "unknown"), f"{process.name}: logp={process.logp!r}"
    for reply, keys in trail(process, some_keys()):
        n = len(keys)
        assert len(reply.states) == n, f"{process.name}: {len(reply.states)} states for {n} keys"
        for book, dtype in (("status", np.integer), ("logp", np.float64), ("logw", np.float64)):
            value = getattr(reply, book)
            assert value.shape == (n,) and np.issubdtype(value.dtype, dtype), f"{process.name}: {book} is {value!r}"
        assert set(reply.status.tolist()) <= {0, 1, 2}, f"{process.name}: status {reply.status}"
        failed = np.flatnonzero(reply.status == Status.FAILED).tolist()
        assert set(reply.errors) == set(failed), f"{process.name}: rows {failed} failed, errors for {set(reply.errors)}"
        assert not np.isnan(reply.logp).any() and not np.isnan(reply.logw).any(), f"{process.name}: a log is NaN"
        assert reply.cut is None or not reply.cut.any(), f"{process.name}: a step that was paid for is cut"
        assert len(process.answers(reply.states)) == n == len(process.texts(reply.states)), f"{process.name}: answers"


@_check
def log_probabilities_are_of_their_kind(process: Process, hook: Hook) -> None:
    """A mass is at most one, so its log is at most zero."""
    if process.logp == "mass":
        for reply, _ in trail(process, some_keys()):
            assert (reply.logp <= 1e-12).all(), f"{process.name}: logp {reply.logp.max()} is no log of a mass"


@_check
def same_keys_same_states(process: Process, hook: Hook) -> None:
    """What comes out is a function of states and keys: a second call, with others between, changes nothing."""
    first = trail(process, some_keys())
    trail(process, some_keys(seed=1))
    for (one, _), (other, _) in zip(first, trail(process, some_keys()), strict=True):
        same_reply(process, one, other, "calling twice")


@_check
def no_global_randomness(process: Process, hook: Hook) -> None:
    """numpy's global generator is neither read nor moved."""
    before = repr(np.random.get_state())
    trail(process, some_keys())
    assert repr(np.random.get_state()) == before, f"{process.name} moves numpy's global random state"


@_check
def batch_is_single(process: Process, hook: Hook) -> None:
    """Each row depends on its own state and key: alone, it comes out the same to the bit."""
    states = None
    for reply, keys in trail(process, some_keys()):
        for row in range(len(keys)):
            one = np.array([row])
            alone = (
                process.start(keys[one], unlimited())
                if states is None
                else process.step(states.take(one), keys[one], unlimited(), "step")
            )
            pick = Stepped(
                reply.states.take(one),
                reply.status[one],
                reply.logp[one],
                reply.logw[one],
                reply.cost,
                errors={0: reply.errors[row]} if row in reply.errors else {},
            )
            same_reply(process, pick, alone, f"stepping row {row} alone")
        live = np.flatnonzero(reply.status == Status.LIVE)
        states = reply.states.take(live)


@_check
def steps_leave_their_states_alone(process: Process, hook: Hook) -> None:
    """States are immutable: stepping them twice from one value gives two futures and changes no past."""
    states, keys = begun(process)
    before = contents(process, states)
    process.step(states, keys, unlimited(), "step")
    process.step(states, children_of(keys, 1), unlimited(), "step")
    assert contents(process, states) == before, f"{process.name}: a step changes the states it was given"


@_check
def take_and_join_are_gathers(process: Process, hook: Hook) -> None:
    """`take` forks, drops and reorders; `join` puts side by side; both are exact, for no rows too."""
    for reply, _ in trail(process, some_keys()):
        states, whole = reply.states, contents(process, reply.states)
        index = np.array([len(whole) - 1, 0, 0])
        assert contents(process, states.take(index)) == [whole[i] for i in index], f"{process.name}: take reorders"
        none = states.take(np.zeros(0, dtype=np.int64))
        assert len(none) == 0, f"{process.name}: taking no rows gives {len(none)}"
        joined = states.take(index).join(none, states)
        assert contents(process, joined) == [whole[i] for i in index] + whole, f"{process.name}: join"
        assert contents(process, states.join()) == whole, f"{process.name}: joining nothing changes the states"
        assert contents(process, none.join(states)) == whole, f"{process.name}: joining to nothing"


@_check
def dump_and_load_are_inverse(process: Process, hook: Hook) -> None:
    """What was written down and read goes on as if it had not been; a process without dump and load says so."""
    keys, states = some_keys(), None
    try:
        process.dump(process.start(keys, unlimited()).states)
    except Unsupported:
        return
    for reply, own in trail(process, keys):
        if states is not None:
            again = process.step(process.load(process.dump(states)), own, unlimited(), "step")
            same_reply(process, reply, again, "writing down and reading")
        ended = process.load(process.dump(reply.states))
        assert process.answers(ended) == process.answers(reply.states), f"{process.name}: a read state answers else"
        states = reply.states.take(np.flatnonzero(reply.status == Status.LIVE))


@_check
def work_counted_is_work_paid(process: Process, hook: Hook) -> None:
    """Evaluations and calls seen by the hook equal those declared, which equal those paid to the limit."""
    states, keys = begun(process)
    for until in ("step", "done", 2) if bounded(process) else ("step",):
        limit = unlimited()
        with hook() as work:
            reply = process.step(states, keys, limit, until)
        _same_work(process, work, limit, reply, f"until={until!r}")
    with hook() as work:
        limit = unlimited()
        reply = process.start(some_keys(), limit)
    _same_work(process, work, limit, reply, "start")
    if process.expands:
        limit = unlimited()
        with hook() as work:
            reply = process.expand(states, 2, np.repeat(keys, 2), limit)
        _same_work(process, work, limit, reply, "expand")


def _same_work(process: Process, work: Any, limit: Limit, reply: Stepped, what: str) -> None:
    assert reply.cost.same(limit.used), f"{process.name}, {what}: declared {reply.cost}, paid {limit.used}"
    paid, done = (limit.used.evaluations, limit.used.calls), (work.evaluations, work.calls)
    assert paid == done, f"{process.name}, {what}: paid (evaluations, calls) = {paid}, the hook counted {done}"


def refusals(process: Process, until: Any) -> int:
    """How many payments a step makes when all are granted."""
    states, keys = begun(process)
    limit = RefusesAt(10**9)
    process.step(states, keys, limit, until)
    return 10**9 - limit.left


@_check
def a_refused_payment_cuts(process: Process, hook: Hook) -> None:
    """Refused at any payment, the step does no more work, and rows without their step come back live and cut; going
    on with the same keys ends where the uncut step ends, at the same total cost save for calls."""
    states, keys = begun(process)
    for until in ("step", "done") if bounded(process) else ("step",):
        limit = unlimited()
        whole = process.step(states, keys, limit, until)
        for k in range(refusals(process, until)):
            refusing = RefusesAt(k)
            with hook() as work:
                part = process.step(states, keys, refusing, until)
            _same_work(process, work, refusing, part, f"refused at payment {k}")
            _goes_on(process, states, keys, part, whole, until, f"until={until!r}, refused at payment {k}")


@_check
def refused_rows_leave_others_alone(process: Process, hook: Hook) -> None:
    """Where a merged call refuses some rows only, the others step as they would have."""
    states, keys = begun(process)
    for until in ("step", "done") if bounded(process) else ("step",):
        whole = process.step(states, keys, unlimited(), until)
        for k in range(3):
            limit = RefusesRows([10**9 if row % 2 else k for row in range(len(states))])
            part = process.step(states, keys, limit, until)
            for row in range(1, len(states), 2):
                assert part.status[row] == whole.status[row], f"{process.name}: refusing row 0 stops row {row}"
            _goes_on(process, states, keys, part, whole, until, f"until={until!r}, even rows refused at {k}")


def _goes_on(process: Process, states: Any, keys: Keys, part: Stepped, whole: Stepped, until: Any, what: str) -> None:
    """A cut step, taken up again with its keys, reaches what the whole step reached."""
    cut = np.zeros(len(keys), dtype=bool) if part.cut is None else part.cut
    assert (part.status[cut] == Status.LIVE).all(), f"{process.name}, {what}: a cut row is not live"
    ended = part.status[~cut]
    expected = whole.status[~cut]
    assert np.array_equal(ended, expected), f"{process.name}, {what}: rows neither cut nor as the whole step left them"
    rows = np.flatnonzero(cut)
    if len(rows) == 0:
        return
    rest = process.step(part.states.take(rows), keys[rows], unlimited(), until)
    for book in ("status", "logp", "logw"):
        value = getattr(part, book).copy()
        value[rows] = getattr(rest, book) + (0 if book == "status" else value[rows])
        assert np.allclose(value, getattr(whole, book)), f"{process.name}, {what}: going on changes {book}"
    order = np.argsort(np.concatenate([np.flatnonzero(~cut), rows]), kind="stable")
    joined = part.states.take(np.flatnonzero(~cut)).join(rest.states).take(order)
    assert contents(process, joined) == contents(process, whole.states), f"{process.name}, {what}: going on differs"


@_check
def until_k_stops_at_k(process: Process, hook: Hook) -> None:
    """With until=k at least k states are done (or none is live), the rest come back cut, and going on is as if never
    stopped."""
    if not bounded(process):
        return
    states, keys = begun(process)
    whole = process.step(states, keys, unlimited(), "done")
    for k in range(1, len(states) + 1):
        part = process.step(states, keys, unlimited(), k)
        done, live = int((part.status == Status.DONE).sum()), part.status == Status.LIVE
        assert done >= k or not live.any(), f"{process.name}: until={k} came back with {done} done and some live"
        assert not live.any() or (part.cut is not None and part.cut[live].all()), f"{process.name}: until={k} not cut"
        _goes_on(process, states, keys, part, whole, "done", f"until={k}")


@_check
def it_ends_by_its_horizon(process: Process, hook: Hook) -> None:
    """No state is live after `horizon` steps, or after until="done"."""
    if not bounded(process):
        return
    reply, _ = trail(process, some_keys())[-1]
    if (process.horizon or 0) <= PATIENCE:
        assert not (reply.status == Status.LIVE).any(), f"{process.name}: live after {process.horizon} steps"
    states, keys = begun(process)
    reply = process.step(states, keys, unlimited(), "done")
    assert not (reply.status == Status.LIVE).any(), f"{process.name}: live after until='done'"


@_check
def branching_is_as_declared(process: Process, hook: Hook) -> None:
    """A process with branches=False gives equal children under different keys, and so do forced states of any;
    `expand` gives distinct ones, in order of their parents, at most k each."""
    states, keys = begun(process)
    if not process.branches:
        one, other = (process.step(states, children_of(keys, i), unlimited(), "step") for i in range(2))
        same_reply(process, one, other, "another key, though branches=False,")
    for reply, keys in trail(process, some_keys()):
        rows = np.flatnonzero(process.forced(reply.states) & (reply.status == Status.LIVE))
        forced, own = reply.states.take(rows), keys[rows]
        one, other = (process.step(forced, children_of(own, i), unlimited(), "step") for i in range(2))
        same_reply(process, one, other, "another key, though the step is forced,")
    states, keys = begun(process)
    if not process.expands:
        return
    for k in (1, 2, 3):
        reply = process.expand(states, k, np.repeat(keys, k), unlimited())
        assert reply.parent is not None, f"{process.name}: expand says no parent"
        assert (np.diff(reply.parent) >= 0).all(), f"{process.name}: children are not in order of their parents"
        held = contents(process, reply.states)
        for parent in range(len(states)):
            mine = [c for c, p in zip(held, reply.parent.tolist(), strict=True) if p == parent]
            assert 1 <= len(mine) <= k and len(set(mine)) == len(mine), f"{process.name}: expand({k}) gave {len(mine)}"


@_check
def merged_is_alone(process: Process, hook: Hook) -> None:
    """A batch shared by two runs: each pays for its own rows, and neither's states change."""
    states, keys = begun(process)
    halves = [np.arange(len(keys))[i::2] for i in range(2) if len(keys[i::2])]
    limits = [Limit(Ledger(), process.name) for _ in halves]
    order = np.concatenate(halves)
    joint = JointLimit(limits, [len(h) for h in halves])
    for until in ("step", "done") if bounded(process) else ("step",):
        before = [limit.used for limit in limits]
        together = process.step(states.take(order), keys[order], joint, until)
        assert together.cost.same(joint.used), f"{process.name}: declared {together.cost} in a merged call"
        for half, limit, was in zip(halves, limits, before, strict=True):
            own = Limit(Ledger(), process.name)
            alone = process.step(states.take(half), keys[half], own, until)
            at = np.array([order.tolist().index(i) for i in half.tolist()])
            assert limit.used.same(was + own.used), f"{process.name}: merged, a run pays {limit.used}, alone {own.used}"
            held, wanted = contents(process, together.states.take(at)), contents(process, alone.states)
            assert held == wanted, f"{process.name}: merging changes states"


@_check
def it_is_a_process(process: Process, hook: Hook) -> None:
    """It prints as its name and shares batches with itself; its hook counts something."""
    assert repr(process), "a process prints"
    assert process.merges() == process.merges() and hash(process.merges()) is not None
    states, keys = begun(process)
    with hook() as work:
        process.step(states, keys, unlimited(), "step")
    if work.calls == 0:
        raise UsageError(
            f"The hook saw no work of {process.name}: call check_process(process, hook=lambda: counted(model)) with a "
            "hook where its numbers are computed."
        )
