"""Run methods at growing n on the same items, many runs merged into one batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from anystep import keys
from anystep.answer import AllFailed
from anystep.bench.entry import Entry, baselines
from anystep.bench.machine import hardware, today, versions
from anystep.bench.report import Report
from anystep.bench.trial import Trial, not_run, trial_of
from anystep.drive import drive
from anystep.errors import AnystepError, UsageError
from anystep.ledger import Budget
from anystep.process import Process
from anystep.run import Run
from anystep.tasks.task import Task

ROWS = 1_024
BEAT = 0.5  # seconds between reports of progress while a batch is being written


@dataclass(frozen=True)
class Progress:
    """How far a comparison is: runs ended of all, what is running, tokens paid and seconds since it began."""

    done: int
    total: int
    label: str
    n: int
    tokens: int
    seconds: float


class Comparison:
    """Methods at growing n on the same items; `run()` runs it, `cancel()` from a signal handler or thread ends it.

    entries: what is compared; greedy and self-consistency are added where they are missing. process_of: the process
    for a task, its greedy one where the second argument is True. seeds: every item is run once a seed; an item's seed
    is shared by all methods, so that their pools of samples nest. budget: a hard limit for each run. rows: the most
    states in flight at once. report: what is known besides (title, model, task), kept with the result.

    Preserves each run's answer and bill: merged runs do what they would do alone, on processes whose rows do not
    depend on their batch. Caches are dropped before each (method, n), so every method pays for all it uses. Raises
    UsageError for what cannot be compared, and the first error where not one item can be run.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        tasks: Sequence[Task],
        process_of: Callable[[Task, bool], Process],
        seeds: Sequence[int] = (0,),
        budget: Budget | None = None,
        rows: int = ROWS,
        progress: Callable[[Progress], None] = lambda progress: None,
        title: str = "",
        model: str = "",
        task: str = "",
    ) -> None:
        if not tasks or not seeds or not entries or rows < 1:
            raise UsageError("compare(entries, tasks, ...) needs an entry, an item, a seed and room for a row.")
        growing = sorted({n for e in entries if not e.greedy for n in e.ns}) or [1]
        self.entries = baselines(entries, growing)
        if len({e.label for e in self.entries}) < len(self.entries):
            labels = ", ".join(e.label for e in self.entries)
            raise UsageError(f"compare: labels repeat among {labels}; give each entry its own.")
        for e in self.entries:
            e.family(e.ns[0], tasks[0])  # a method that cannot be made is said before any work
        self.tasks, self.process_of, self.seeds, self.budget = tuple(tasks), process_of, tuple(seeds), budget
        self.rows, self.progress = rows, progress
        self.title, self.model, self.task = title, model, task
        self.total = len(self.tasks) * len(self.seeds) * sum(len(e.ns) for e in self.entries)
        self.trials: list[Trial] = []
        self.cancelled = False
        self._running: list[Run] = []

    def cancel(self) -> None:
        """End at the next unit of work; the report then holds what had finished before."""
        self.cancelled = True
        for run in self._running:
            run.cancel()

    def run(self) -> Report:
        """All of it; the small n of every method first, so that a comparison cut short is still one."""
        began = time.perf_counter()
        for n, e in self._order():
            for i, chunk in enumerate(self._chunks(n)):
                if self.cancelled:
                    break
                trials = self._merged(e, n, chunk, began, fresh=i == 0)
                self.trials += [] if self.cancelled else trials  # a run cut off by cancel says nothing of its method
        if self.trials and all(t.stopped_because == "not run" for t in self.trials):
            raise UsageError(f"not one of {len(self.tasks)} items can be run: {self.trials[0].error}")
        return Report(
            trials=tuple(self.trials),
            labels=tuple(e.label for e in self.entries),
            greedy=next(e.label for e in self.entries if e.greedy),
            oracles=tuple(e.label for e in self.entries if e.oracle),
            title=self.title,
            model=self.model,
            task=self.task,
            seeds=self.seeds,
            budget={} if self.budget is None else dict(self.budget.caps()),
            seconds=time.perf_counter() - began,
            complete=not self.cancelled,
            date=today(),
            hardware=hardware(),
            versions=versions(),
        )

    def _order(self) -> Iterator[tuple[int, Entry]]:
        for n in sorted({n for e in self.entries for n in e.ns}):
            yield from ((n, e) for e in self.entries if n in e.ns)

    def _chunks(self, n: int) -> Iterator[list[tuple[Task, int]]]:
        """(item, seed) pairs, as many at once as their states fit into `rows`."""
        jobs = [(task, seed) for task in self.tasks for seed in self.seeds]
        size = max(1, self.rows // n)
        return (jobs[i : i + size] for i in range(0, len(jobs), size))

    def _merged(self, e: Entry, n: int, jobs: list[tuple[Task, int]], began: float, fresh: bool) -> list[Trial]:
        """The trials of one (method, n) on some items, driven as one batch; `fresh` drops the caches first."""
        trials: dict[int, Trial] = {}
        runs: dict[int, Run] = {}
        finished, paid = len(self.trials), sum(t.cost.tokens for t in self.trials)
        said = time.perf_counter()

        def tell() -> None:
            nonlocal said
            said = time.perf_counter()
            ended = sum(not run.calls for run in runs.values())
            tokens = paid + sum(run.spent.tokens for run in runs.values())
            self.progress(Progress(finished + ended, self.total, e.label, n, tokens, said - began))

        def beat(*anything: object) -> None:  # called for every piece of every state: mostly it only looks
            if time.perf_counter() - said > BEAT:
                tell()

        tell()
        for i, (task, seed) in enumerate(jobs):
            try:
                process = self.process_of(task, e.greedy)
            except AnystepError as error:
                trials[i] = not_run(e.label, n, task, seed, str(error))
                continue
            method = e.family(n, task)
            if fresh:
                process.forget()
                for reward in method.rewards():
                    reward.source().forget()
                fresh = False
            runs[i] = Run(process, method, self.budget, item_seed(seed, task.id), show=beat, watch=beat)
        self._running = list(runs.values())
        with contextlib.suppress(AnystepError):  # of a run that failed, after all others have ended
            drive(*self._running)
        for run in self._running:
            if run.error is not None and not isinstance(run.error, AllFailed):
                raise run.error
        tell()
        self._running = []
        trials.update({i: trial_of(run, e.label, n, jobs[i][0], jobs[i][1]) for i, run in runs.items()})
        return [trials[i] for i in sorted(trials)]


def compare(
    entries: Sequence[Entry],
    tasks: Sequence[Task],
    process_of: Callable[[Task, bool], Process],
    seeds: Sequence[int] = (0,),
    budget: Budget | None = None,
    rows: int = ROWS,
    progress: Callable[[Progress], None] = lambda progress: None,
    title: str = "",
    model: str = "",
    task: str = "",
) -> Report:
    """Run `Comparison` to its end; see there."""
    return Comparison(entries, tasks, process_of, seeds, budget, rows, progress, title, model, task).run()


def item_seed(seed: int, item: str) -> int:
    """The run's seed for one item: items draw independently of each other, methods on one item do not."""
    return keys.named(f"{seed}/{item}")
