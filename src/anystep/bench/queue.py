"""Runs side by side, each at its own pace: for processes that wait on something elsewhere, as endpoints do."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from anystep.bench.apart import Apart
from anystep.bench.desk import Desk, Job
from anystep.bench.lockstep import replay
from anystep.bench.store import Key, Store, packed
from anystep.bench.trial import broken, not_run, trial_of
from anystep.drive import LOOK, drive
from anystep.errors import AnystepError, Unsupported
from anystep.process import Process, Stepped
from anystep.run import Run
from anystep.told import Told

LANES = 32  # runs at once: a client bounds its requests itself, this bounds the threads that wait for it


class Kept:
    """A run's journal that writes each round into the store as it is told, and each row's end in the middle of one."""

    def __init__(self, store: Store | None, key: Key, process: Process) -> None:
        self.store, self.key, self.process = store, key, process
        self.rounds: list[Told] = [] if store is None else store.rounds(key, process)
        self.run: Run | None = None

    def __iter__(self) -> Iterator[Told]:
        return iter(list(self.rounds))

    def append(self, told: Told) -> None:
        self._write(len(self.rounds), told)
        self.rounds.append(told)

    def begin(self, run: Run) -> None:
        self.run = run

    def end(self, run: Run) -> None:
        self.run = None

    def note(self, reply: Stepped) -> None:
        """A step has come so far. Written where its round will be, which takes its place."""
        if self.run is not None and len(self.run.calls) == 1:  # of several calls the others are not known
            self._write(len(self.rounds), self.run.cut_off([reply]))

    def _write(self, at: int, told: Told) -> None:
        if self.store is not None:
            with contextlib.suppress(Unsupported):  # without dump() only ended runs are kept
                self.store.write([(self.key, at, packed(told, self.process))])


def run_queue(desk: Desk, jobs: Iterable[Job], rows: int) -> None:
    """Run jobs in order, each in a thread of its own as soon as there is room: LANES at once, and `rows` states.

    A run begins when it is taken up, and its budget's seconds with it. One that ends in an error stops no other.
    """
    waiting = deque(jobs)
    active: dict[Future[None], int] = {}
    with ThreadPoolExecutor(LANES, "anystep-run") as pool:
        try:
            while (waiting and not desk.cancelled) or active:
                while waiting and not desk.cancelled and _room(active, waiting[0].n, rows):
                    job = waiting.popleft()
                    desk.now = (job.entry.label, job.n)
                    active[pool.submit(_one, desk, job)] = job.n
                desk.tell()
                for future in wait(active, LOOK, FIRST_COMPLETED).done:
                    del active[future]
                    future.result()
        except BaseException:  # an interrupt, or a defect: no thread and no request is left behind
            desk.cancel()
            raise
        finally:
            desk.tell()


def _room(active: dict[Future[None], int], n: int, rows: int) -> bool:
    return not active or (len(active) < LANES and sum(active.values()) + n <= rows)


def _one(desk: Desk, job: Job) -> None:
    """One run from its beginning, or from where the store has it, to its trial."""
    about = (job.entry.label, job.n, job.task, job.seed)
    if desk.cancelled:
        return
    run: Run | None = None
    try:
        process = desk.process_of(job.task, job.entry.greedy)
        journal = Kept(desk.store, job.key, process)
        run = desk.run_of(job, process if desk.store is None else Apart(process, journal.note), journal)
        desk.running[job.key] = run
        if desk.cancelled:  # between the look above and the line before
            run.cancel()
        replay(run, journal)
        drive(run)
        trial = trial_of(run, *about)
    except AnystepError as error:
        if run is None:
            trial = not_run(*about, str(error))
        elif run.calls:
            trial = broken(*about, str(error), run.spent)
        else:
            trial = trial_of(run, *about)
    finally:
        desk.running.pop(job.key, None)
    if run is None or not run.ledger.cancelled:
        desk.write(trials=[trial], drop=[job.key])
