"""Where a comparison's runs are made, watched, written down and cancelled: what lockstep and side by side share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from anystep import keys
from anystep.bench.entry import Entry
from anystep.bench.store import Key, Store
from anystep.bench.trial import UNRUN, Trial
from anystep.ledger import Budget
from anystep.process import Process
from anystep.run import Run
from anystep.tasks.task import Task
from anystep.told import Journal

HOPELESS = 4  # errors of a method without one run that ended well
BEAT = 0.5  # seconds between reports of progress while a batch is being written


@dataclass(frozen=True)
class Progress:
    """How far a comparison is: runs ended of all, those of them without an answer, what is running, tokens paid and
    seconds since it began."""

    done: int
    total: int
    label: str
    n: int
    tokens: int
    seconds: float
    failed: int = 0


@dataclass(frozen=True)
class Job:
    """One run to do: a method at size n on an item with a seed."""

    entry: Entry
    n: int
    task: Task
    seed: int

    @property
    def key(self) -> Key:
        return self.entry.label, self.n, self.task.id, self.seed


@dataclass
class Desk:
    """The work of one comparison under way. `ended` holds each trial by its key, those of the store too."""

    process_of: Callable[[Task, bool], Process]
    budget: Budget | None
    total: int
    progress: Callable[[Progress], None]
    store: Store | None = None
    ended: dict[Key, Trial] = field(default_factory=dict)
    cancelled: bool = False
    running: dict[Key, Run] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    now: tuple[str, int] = ("", 0)
    said: float = 0.0
    each: int = 1  # runs of one (method, n)
    hopeless: str = ""  # why it was given up, where it was
    _fine: set[str] = field(default_factory=set)
    _errors: dict[str, int] = field(default_factory=dict)
    _paid: int = 0
    _failed: int = 0
    _written: float = field(default_factory=time.perf_counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._paid = sum(t.cost.tokens for t in self.ended.values())
        self._failed = sum(t.failed for t in self.ended.values())
        self._fine = {t.label for t in self.ended.values()}

    def run_of(self, job: Job, process: Process, journal: Journal | None = None) -> Run:
        """A job's run, not yet driven; its budget's seconds begin now."""
        seed = item_seed(job.seed, job.task.id)
        method = job.entry.family(job.n, job.task)
        return Run(process, method, self.budget, seed, show=self.beat, watch=self.beat, journal=journal)

    def write(
        self, rounds: Iterable[tuple[Key, int, bytes]] = (), trials: Iterable[Trial] = (), drop: Iterable[Key] = ()
    ) -> None:
        """Note what has come of some runs, in the store, if there is one, first."""
        with self._lock:
            fresh = [t for t in trials if t.key not in self.ended]
            if self.store is not None:
                now = time.perf_counter()
                good = [t for t in fresh if t.stopped_because not in UNRUN]  # the others may fare better another time
                self.store.write(rounds, good, drop, now - self._written)
                self._written = now
            for trial in fresh:
                self.ended[trial.key] = trial
                self.running.pop(trial.key, None)
                self._paid += trial.cost.tokens
                self._failed += trial.failed
                self._judge(trial)

    def _judge(self, trial: Trial) -> None:
        """A method whose first runs all end in an error is given up, before it costs more."""
        if trial.stopped_because != "error":
            self._fine.add(trial.label)
        elif trial.label not in self._fine:
            self._errors[trial.label] = self._errors.get(trial.label, 0) + 1
            if self._errors[trial.label] >= min(HOPELESS, self.each) and not self.hopeless:
                self.hopeless = f"{trial.label}: {trial.error}"
                self.cancel()

    def cancel(self) -> None:
        self.cancelled = True
        for run in list(self.running.values()):
            run.cancel()

    def tell(self) -> None:
        """Report progress."""
        with self._lock:
            self.said = time.perf_counter()
            tokens = self._paid + sum(run.spent.tokens for run in self.running.values())
            spent = self.said - self.began
            self.progress(Progress(len(self.ended), self.total, *self.now, tokens, spent, self._failed))

    def beat(self, *anything: object) -> None:
        """Called for every piece of every state: mostly it only looks at the clock."""
        if time.perf_counter() - self.said > BEAT:
            self.tell()


def item_seed(seed: int, item: str) -> int:
    """The run's seed for one item: items draw independently of each other, methods on one item do not."""
    return keys.named(f"{seed}/{item}")
