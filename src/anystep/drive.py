"""Perform what runs ask for: sync or async, one run or many. This is the one place that merges.

In each round the calls of all runs are grouped by what can share a batch, joined, performed, and split again. Because
draws follow lineage and every row pays its own run's limit, merging changes no answer and no bill. Runs whose process
only waits on something elsewhere gain nothing from rounds: each goes on in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from anystep.answer import Answer
from anystep.calls import Call, Reply
from anystep.errors import AnystepError
from anystep.ledger import JointLimit
from anystep.process import Scored, Stepped
from anystep.run import Run

SIDE_BY_SIDE = 64  # threads that wait on concurrent processes at once
LOOK = 0.2  # seconds between looks for an interrupt: one that arrives just before a wait without end is not seen in it


def drive(*runs: Run, told: Callable[[], None] = lambda: None) -> tuple[Answer, ...]:
    """Drive runs to their end; `run.cancel()` from a signal handler or a thread stops one.

    Runs are merged step by step, but for those on a `concurrent` process, which go on side by side, each at its own
    pace. A run without an answer (all its states failed) raises why, after the others have theirs in `run.answer`; an
    error that ended one of several in the middle of a round is in its `run.error`.
    told: called after each round of merged runs, when all of them know their replies, so that a keeper can write it
    down as one; in a run's own thread where runs go side by side.
    """
    lanes = _lanes(runs)
    if len(lanes) <= 1:
        for lane in lanes:
            _lockstep(lane, told)
        return _answers(runs)
    with ThreadPoolExecutor(min(len(lanes), SIDE_BY_SIDE), "anystep-run") as pool:
        try:
            work = [pool.submit(_lockstep, lane, told) for lane in lanes]
            while wait(work, LOOK).not_done:
                pass
        except BaseException:  # an interrupt: no thread and no request is left behind
            for run in runs:
                run.cancel()
            raise
    for lane, done in zip(lanes, work, strict=True):
        _blamed(lane, done.exception())
    for done in work:
        done.result()
    return _answers(runs)


async def adrive(*runs: Run) -> tuple[Answer, ...]:
    """As `drive`, without blocking the event loop; cancelling the task stops the work at its next payment.

    The runs go on in threads; while they are driven, `show` and `watch` are called there, not in the event loop's.
    """
    lanes = _lanes(runs)
    cancelled: asyncio.CancelledError | None = None
    with ThreadPoolExecutor(max(1, min(len(lanes), SIDE_BY_SIDE)), "anystep-run") as pool:
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(pool, _lockstep, lane) for lane in lanes]
        work = asyncio.gather(*jobs, return_exceptions=True)  # all of them end before an error of one is raised
        while not work.done():
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError as error:  # perhaps again and again: no thread is left behind
                cancelled = error
                for run in runs:
                    run.cancel()
        results = work.result()
    if cancelled is not None:
        raise cancelled
    for lane, result in zip(lanes, results, strict=True):
        _blamed(lane, result if isinstance(result, BaseException) else None)
    for failed in (r for r in results if isinstance(r, BaseException)):
        raise failed
    return _answers(runs)


def _lanes(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that are driven in lockstep with each other: one by one on concurrent processes, all others together."""
    merged = [run for run in runs if not run.process.concurrent]
    return [*([merged] if merged else []), *([run] for run in runs if run.process.concurrent)]


def _lockstep(runs: Sequence[Run], told: Callable[[], None] = lambda: None) -> None:
    """Rounds of merged calls until every run has ended."""
    while waiting := [run for run in runs if run.calls]:
        calls = [call for run in waiting for call in run.calls]
        grouped = groups(calls)
        _tell(waiting, _flat(grouped, _performed([[calls[i] for i in group] for group in grouped])))
        told()


def _performed(batches: Sequence[Sequence[Call]]) -> list[list[Reply]]:
    """Batches in turn; where several of them only wait on something elsewhere, at the same time."""
    apart = [i for i, batch in enumerate(batches) if getattr(batch[0].by, "concurrent", False)]
    if len(apart) < 2:
        return [perform(batch) for batch in batches]
    with ThreadPoolExecutor(min(len(apart), SIDE_BY_SIDE), "anystep-call") as pool:
        work = {i: pool.submit(perform, batches[i]) for i in apart}
        try:
            replies = {i: perform(batch) for i, batch in enumerate(batches) if i not in work}
            while wait(work.values(), LOOK).not_done:
                pass
            return [replies[i] if i in replies else work[i].result() for i in range(len(batches))]
        except BaseException:  # what is under way ends at its next payment, and only then does the pool close
            for call in (call for batch in batches for call in batch):
                call.limit.ledger.cancel()
            raise


def _blamed(lane: Sequence[Run], error: BaseException | None) -> None:
    """Note what ended these runs in the middle of a round."""
    if isinstance(error, Exception):
        for run in lane:
            if run.answer is None and run.error is None:
                run.error = error


def _answers(runs: Sequence[Run]) -> tuple[Answer, ...]:
    for run in runs:
        if run.error is not None:
            raise run.error
    return tuple(run.answer for run in runs if run.answer is not None)


def _flat(grouped: list[list[int]], results: Sequence[Sequence[Reply]]) -> dict[int, Reply]:
    return {
        i: reply
        for group, replies in zip(grouped, results, strict=True)
        for i, reply in zip(group, replies, strict=True)
    }


def _tell(runs: Sequence[Run], replies: dict[int, Reply]) -> None:
    at = 0
    for run in runs:
        n = len(run.calls)
        with contextlib.suppress(AnystepError):  # kept in run.error; one run must not stop the others
            run.tell([replies[i] for i in range(at, at + n)])
        at += n


def groups(calls: Sequence[Call]) -> list[list[int]]:
    """Indices of calls that may share a batch: one verb on processes that merge, or one reward."""
    found: dict[Hashable, list[int]] = {}
    for i, call in enumerate(calls):
        found.setdefault(_kind(i, call), []).append(i)
    return list(found.values())


def _kind(i: int, call: Call) -> Hashable:
    match call.verb:
        case "score":
            return "score", call.by, call.of
        case "start":
            return "start", id(call.by)
        case "step" if isinstance(call.until, str):
            return "step", call.by.merges(), call.until
        case "expand":
            return "expand", call.by.merges(), call.k
    return "alone", i


def perform(calls: Sequence[Call]) -> list[Reply]:
    """Perform calls that may share a batch, as one batch."""
    if len(calls) == 1:
        return [calls[0].perform()]
    first = calls[0]
    sizes = [len(c.keys) if c.states is None else len(c.states) for c in calls]
    states = None if first.states is None else first.states.join(*(c.states for c in calls[1:]))
    limit = JointLimit([c.limit for c in calls], sizes, [c.keys for c in calls])
    reply = replace(first, states=states, keys=np.concatenate([c.keys for c in calls]), limit=limit).perform()
    edges = np.cumsum([0, *sizes]).tolist()
    return [split(reply, lo, hi, call.limit.used) for call, (lo, hi) in zip(calls, pairwise(edges), strict=True)]


def split(reply: Reply, lo: int, hi: int, cost: Any) -> Reply:
    """The part of a joint reply that belongs to rows lo to hi of its batch."""
    if isinstance(reply, Scored):
        return Scored(reply.values[lo:hi], cost)
    index = np.arange(len(reply.status)) if reply.parent is None else reply.parent
    rows = np.flatnonzero((index >= lo) & (index < hi))
    first = int(rows[0]) if len(rows) else 0
    return Stepped(
        states=reply.states.take(rows),
        status=reply.status[rows],
        logp=reply.logp[rows],
        logw=reply.logw[rows],
        cost=cost,
        cut=None if reply.cut is None else reply.cut[rows],
        errors={row - first: text for row, text in reply.errors.items() if first <= row < first + len(rows)},
        parent=None if reply.parent is None else reply.parent[rows] - lo,
    )
