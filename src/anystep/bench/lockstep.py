"""A batch of runs merged step by step, each round of it written down as one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from anystep.bench.desk import Desk, Job
from anystep.bench.store import Key, packed
from anystep.bench.trial import Trial, broken, not_run, trial_of
from anystep.drive import drive
from anystep.errors import AnystepError, Unsupported
from anystep.run import Run
from anystep.told import Told


def run_batch(desk: Desk, jobs: Sequence[Job]) -> None:
    """Run jobs of one (method, n) as one batch, from where the store has them.

    Caches are dropped first. Runs of the batch that have ended are replayed beside the others, so that the caches hold
    again what all of them had put there: who pays for what is shared is then what it was.
    """
    desk.now = (jobs[0].entry.label, jobs[0].n)
    desk.tell()
    runs, written = _made(desk, jobs)
    by_key = {job.key: job for job in jobs}
    desk.running = dict(runs)
    if desk.cancelled:  # before there was anything to cancel
        desk.cancel()

    def trial(key: Key, run: Run) -> Trial:
        job = by_key[key]
        return trial_of(run, job.entry.label, job.n, job.task, job.seed)

    def told() -> None:
        fresh = [(key, run) for key, run in runs.items() if run.rounds > written[key]]
        rounds = [(key, *round) for key, run in fresh for round in _packed(desk, run, written[key])]
        written.update((key, run.rounds) for key, run in fresh)
        desk.write(rounds, [trial(key, run) for key, run in fresh if not run.calls and not run.ledger.cancelled])

    try:
        with contextlib.suppress(AnystepError):  # of one run, after all others have ended; or of a batch, see below
            drive(*runs.values(), told=told)
        if not desk.cancelled:
            desk.write(trials=[trial(key, run) for key, run in runs.items() if not run.calls])
            _one_by_one(desk, by_key, {key: run for key, run in runs.items() if run.calls})
    finally:
        desk.running = {}
    if desk.cancelled:
        return
    if desk.store is not None:
        desk.store.tidy()
    desk.tell()


def _made(desk: Desk, jobs: Sequence[Job]) -> tuple[dict[Key, Run], dict[Key, int]]:
    """The runs of a batch that have not ended, brought to where the store has them, and how many rounds it has of each;
    what cannot begin is a trial."""
    runs: dict[Key, Run] = {}
    written: dict[Key, int] = {}
    refused: list[Trial] = []
    fresh = True
    for job in jobs:
        try:
            process = desk.process_of(job.task, job.entry.greedy)
            if fresh:
                process.forget()
                for reward in job.entry.family(job.n, job.task).rewards():
                    reward.source().forget()
                fresh = False
            run = desk.run_of(job, process)
        except AnystepError as error:
            refused.append(not_run(job.entry.label, job.n, job.task, job.seed, str(error)))
            continue
        rounds = [] if desk.store is None else desk.store.rounds(job.key, process)
        replay(run, rounds)
        if job.key not in desk.ended:
            runs[job.key], written[job.key] = run, len(rounds)
    desk.write(trials=refused)
    return runs, written


def replay(run: Run, rounds: Iterable[Told]) -> None:
    """Bring a run to the end of some rounds, with its caches; that it ended there without an answer is in its error.

    What a cancel had cut off goes on; a budget that ran out stays so.
    """
    rounds = list(rounds) if rounds is not run.journal else rounds
    try:
        run.replay(rounds, warm=True, reopen=any(told.refused == "cancelled" for told in rounds))
    except AnystepError:
        if run.error is None:
            raise


def _packed(desk: Desk, run: Run, first: int) -> list[tuple[int, bytes]]:
    """A run's rounds from the `first` on as the store keeps them; none without a store, or where the process has no
    dump() to write its states down: then only ended runs are kept."""
    if desk.store is None:
        return []
    try:
        return [(first + i, packed(told, run.process)) for i, told in enumerate(list(run.journal)[first:])]
    except Unsupported:
        return []


def _one_by_one(desk: Desk, jobs: Mapping[Key, Job], left: Mapping[Key, Run]) -> None:
    """After an error that ended a whole batch: each run alone, so that only those are lost which have it themselves."""
    for key, run in left.items():
        job = jobs[key]
        alone = desk.run_of(job, run.process)  # the other has paid for calls that came to nothing
        desk.running = {key: alone}
        try:
            replay(alone, list(run.journal))
            drive(alone)
        except AnystepError as error:
            if alone.calls and not desk.cancelled:
                found = broken(job.entry.label, job.n, job.task, job.seed, str(error), alone.spent)
                desk.write(trials=[found])
        if desk.cancelled:
            return
        if not alone.calls:
            desk.write(trials=[trial_of(alone, job.entry.label, job.n, job.task, job.seed)])
