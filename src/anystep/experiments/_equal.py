"""What a method answers and pays on a set of problems, and the baseline that may spend as much."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.bench.compare import item_seed
from anystep.calibrate.interval import Interval, level
from anystep.drive import drive
from anystep.errors import AnystepError
from anystep.experiments._figures import paired
from anystep.ledger import FREE, Budget, Cost
from anystep.procedure import Method
from anystep.process import Floats, Process
from anystep.run import Run
from anystep.solve import process_for
from anystep.tasks.task import Task

BATCH = 64
MethodFor = Method | Callable[[Task], Method]


@dataclass(frozen=True)
class Outcomes:
    """One method on every problem, in order: whether it was right and what it paid, all (items,).

    right: the score of its answer, 0 where there is none. tokens: prompt and generated, of every model and reward.
    runs: the runs themselves, for what else is asked of them.
    """

    right: Floats
    tokens: Floats
    runs: tuple[Run, ...] = field(repr=False)

    @property
    def accuracy(self) -> Interval:
        return level([[r] for r in self.right])

    @property
    def cost(self) -> float:
        """Mean tokens a problem."""
        return float(self.tokens.mean())

    def paid(self, purpose: str) -> Floats:
        """Tokens booked under one model's or reward's name, (items,)."""
        return np.array([run.ledger.by.get(purpose, FREE).tokens for run in self.runs], dtype=np.float64)

    def over(self, other: Outcomes) -> Interval:
        """Accuracy minus another's on the same problems, bootstrapped over them."""
        return paired(self.right, other.right)


def outcomes(
    engine: Any,
    tasks: Sequence[Task],
    method: MethodFor,
    seed: int = 0,
    budget: Budget | None = None,
    process_of: Callable[[Task], Process] | None = None,
    batch: int = BATCH,
) -> Outcomes:
    """`method` (or the one it makes for a task) on every task, run in batches whose caches are dropped before:
    what runs of one batch share is paid once, as in `anystep.bench.compare`.

    process_of: the process of a task, by default the engine's at temperature 1.
    """
    make = process_of or (lambda task: process_for(task, engine, temperature=1.0))
    made = method if callable(method) and not isinstance(method, Method) else (lambda task: method)
    runs = [Run(make(task), made(task), budget, item_seed(seed, task.id)) for task in tasks]
    for at in range(0, len(runs), batch):
        some = runs[at : at + batch]
        for run in some:
            run.process.forget()
            for reward in run.method.rewards():
                reward.source().forget()
            for other in (value for _, value in run.method.options if isinstance(value, Process)):
                other.forget()
        with contextlib.suppress(AnystepError):  # a run whose states all failed raises after the others have ended
            drive(*some)
    right = np.array([_score(task, run) for task, run in zip(tasks, runs, strict=True)])
    return Outcomes(right, np.array([_tokens(run.spent) for run in runs]), tuple(runs))


def _score(task: Task, run: Run) -> float:
    return 0.0 if run.answer is None or run.answer.text is None else float(task.score(run.answer.text))


def _tokens(cost: Cost) -> float:
    return float(cost.tokens)


def no_cheaper(
    family: Callable[[int], Outcomes], tokens: float, ns: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128)
) -> tuple[int, Outcomes]:
    """The smallest member of a growing family of baselines that spends at least `tokens` a problem, or its largest."""
    for n in ns:
        found = family(n)
        if found.cost >= tokens:
            break
    return n, found
