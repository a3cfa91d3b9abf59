"""Run methods at growing n on the same items: merged into batches, or side by side where the work is elsewhere."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import ParamSpec

import anystep
from anystep.bench.desk import Desk, Job, Progress, item_seed
from anystep.bench.entry import Entry, baselines
from anystep.bench.lockstep import run_batch
from anystep.bench.machine import hardware, today, versions
from anystep.bench.queue import run_queue
from anystep.bench.report import Item, Report
from anystep.bench.store import Key, Store
from anystep.bench.trial import UNRUN, Trial
from anystep.errors import AnystepError, UsageError
from anystep.ledger import Budget
from anystep.process import Process
from anystep.tasks.data.read import digest
from anystep.tasks.task import Task

__all__ = ["ROWS", "Comparison", "Progress", "compare", "item_seed"]

ROWS = 1_024
P = ParamSpec("P")


class Comparison:
    """Methods at growing n on the same items; `run()` runs it, `cancel()` from a signal handler or thread ends it.

    entries: what is compared; greedy and self-consistency are added where they are missing. process_of: the process
    for a task, its greedy one where the second argument is True. seeds: every item is run once a seed; an item's seed
    is shared by all methods, so that their pools of samples nest. budget: a hard limit for each run. rows: the most
    states in flight at once. store: keeps every ended run and every round of the others, so that a comparison which was
    killed goes on where it was, and one that is asked for more runs only that. same: what else, beside model, budget
    and items, must be equal for a stored comparison to go on, such as options of generation. title, model, task, notes,
    command: what is known besides, kept with the result.

    Preserves each run's answer and bill: merged runs do what they would do alone, on processes whose rows do not
    depend on their batch. Caches are dropped before each batch, so every method pays for all it uses, and what runs of
    one batch share is paid once. On a `concurrent` process there are no batches: runs go side by side in a queue.
    Raises UsageError for what cannot be compared, and the first error where not one item can be run.
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
        store: Store | None = None,
        same: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        command: str = "",
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
        self.tasks, self.seeds = _unlike(tasks), tuple(dict.fromkeys(seeds))
        self.process_of, self.budget = process_of, budget
        self.rows, self.progress, self.store, self.same = rows, progress, store, dict(same or {})
        self.title, self.model, self.task = title, model, task
        self.notes, self.command = tuple(notes), command
        self.total = len(self.tasks) * len(self.seeds) * sum(len(e.ns) for e in self.entries)
        self.trials: list[Trial] = []
        self.cancelled = False
        self._desk: Desk | None = None

    def cancel(self) -> None:
        """End at the next unit of work; the report then holds what had finished before, the store also what had not."""
        self.cancelled = True
        if self._desk is not None:
            self._desk.cancel()

    def run(self) -> Report:
        """All of it; the small n of every method first, so that a comparison cut short is still one."""
        began = time.perf_counter()
        jobs = {job.key: job for group in self._groups() for job in group}
        before = self._kept()
        ended = {key: trial for key, (_, trial) in before.items() if key in jobs}
        desk = Desk(self.process_of, self.budget, self.total, self.progress, self.store, ended, self.cancelled)
        desk.each = len(self.tasks) * len(self.seeds)
        self._desk = desk
        if self._side_by_side():
            run_queue(desk, [job for key, job in jobs.items() if key not in ended], self.rows)
        else:
            earlier = {key for key, (session, _) in before.items() if self.store and session < self.store.session}
            for batch in self._batches(earlier):
                if not desk.cancelled and any(job.key not in desk.ended for job in batch):
                    run_batch(desk, batch)
        if desk.hopeless:
            raise UsageError(desk.hopeless)
        self.trials = [desk.ended[key] for key in jobs if key in desk.ended]
        if self.trials and all(t.stopped_because in UNRUN for t in self.trials):
            raise UsageError(f"not one of {len(self.tasks)} items can be run: {self.trials[0].error}")
        return self._report(self.store.seconds if self.store else time.perf_counter() - began)

    def _report(self, seconds: float) -> Report:
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
            seconds=seconds,
            complete=len(self.trials) == self.total,
            date=today(),
            hardware=hardware(),
            versions=versions(),
            items=tuple(Item.of(task) for task in self.tasks),
            notes=self.notes,
            command=self.command,
        )

    def _groups(self) -> Iterator[list[Job]]:
        """The jobs of each (method, n), the small n of every method first."""
        for n in sorted({n for e in self.entries for n in e.ns}):
            for e in self.entries:
                if n in e.ns:
                    yield [Job(e, n, task, seed) for task in self.tasks for seed in self.seeds]

    def _batches(self, earlier: Collection[Key] = ()) -> Iterator[list[Job]]:
        """What runs as one: as many jobs of a group as their states fit into `rows`.

        A function of what was asked and of what had ended before (`earlier`), never of how far this work has come: a
        batch that is gone on with is the one that was interrupted.
        """
        for group in self._groups():
            left = [job for job in group if job.key not in earlier]
            size = max(1, self.rows // group[0].n)
            yield from (left[i : i + size] for i in range(0, len(left), size))

    def _side_by_side(self) -> bool:
        """Whether the first task that has a process has a concurrent one."""
        for task in self.tasks:
            try:
                return self.process_of(task, False).concurrent
            except AnystepError:
                continue
        return False

    def _kept(self) -> dict[Key, tuple[int, Trial]]:
        """What the store has, once it is found to be this comparison's."""
        if self.store is None:
            return {}
        self.claim()
        methods = {e.label: list(e.ns) for e in self.entries}
        wanted = {"methods": methods, "items": [t.id for t in self.tasks], "seeds": list(self.seeds), "rows": self.rows}
        self.store.begin(wanted)
        return self.store.trials()

    def claim(self) -> None:
        """Make the store this comparison's; UsageError where it is another's."""
        assert self.store is not None
        caps = {} if self.budget is None else self.budget.caps()
        same = {"anystep": anystep.__version__, "model": self.model, "budget": json.dumps(caps) if caps else ""}
        items = {t.id: _said(t) for t in self.tasks}
        self.store.claim(
            {**same, **self.same}, {"item": items, "method": {e.label: self._content(e) for e in self.entries}}
        )

    def _content(self, e: Entry) -> str:
        """What a method's label stands for, the same in every process."""
        return e.key or re.sub(r" at 0x[0-9a-f]+", "", repr(e.family(e.ns[0], self.tasks[0])))


def _said(task: Task) -> str:
    """A short name for what an item says."""
    return str(task.meta.get("digest") or digest(task.prompt, task.reference))


def _unlike(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The items, one that repeats once: it would be run alike. UsageError where one name stands for two."""
    found: dict[str, Task] = {}
    for task in tasks:
        if _said(found.setdefault(task.id, task)) != _said(task):
            raise UsageError(f"compare: two items are called {task.id[:60]!r}; give each Task an id of its own.")
    return tuple(found.values())


def _running(make: Callable[P, Comparison]) -> Callable[P, Report]:
    @functools.wraps(make, updated=())
    def compare(*args: P.args, **kwargs: P.kwargs) -> Report:
        return make(*args, **kwargs).run()

    compare.__name__ = compare.__qualname__ = "compare"
    compare.__doc__ = """Run a `Comparison`, which takes the same arguments, to its end."""
    return compare


compare = _running(Comparison)
