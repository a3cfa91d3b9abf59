"""Do the examples hold that a programming problem shows? An imperfect check: the hidden tests are the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.ledger import Cost, JointLimit, Limit
from anystep.process import Floats, Reward, Scored
from anystep.tasks.code import Problem, forget, shares
from anystep.tasks.task import Task
from anystep.verify.asked import asked_by, which

AT_ONCE = 16  # programs that are paid for before the next ones are


@dataclass(frozen=True)
class Tests(Reward):
    """The share of the examples shown in its task's prompt whose value a state's program returns; with `all`, 1 where
    that is every one of them, else 0.

    Each distinct program of a batch is run once in the sandbox and costs one call, paid before it runs, whether or not
    its outcome is still remembered. A state is read as it stands: one whose text holds no program yet is worth 0, free
    of charge, so unfinished states only steer where they already define the function. NaN where the limit refused or
    the sandbox could not run.
    """

    __test__ = False  # to pytest, which collects classes of this name

    tasks: tuple[Task, ...] = field(compare=False, repr=False)
    ids: tuple[str, ...]
    asked: tuple[str, ...]
    all: bool = False
    name: str = "tests"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.zeros(len(states))
        groups = self._groups(states, limit)
        pairs = list(groups)
        for start in range(0, len(pairs), AT_ONCE):
            some = pairs[start : start + AT_ONCE]
            paid = [pair for pair in some if limit.pay([groups[pair][0]], each=Cost(calls=1))[0]]
            self._judge(paid, groups, values)
            for pair in some:
                if pair not in paid:
                    values[groups[pair]] = np.nan
        return Scored(values, limit.used)

    def _groups(self, states: Any, limit: Limit) -> dict[tuple[int, Problem, str], list[int]]:
        """The rows of each distinct program: of each owner's, where runs share the batch, for each pays its own."""
        owners = limit.owner.tolist() if isinstance(limit, JointLimit) else [0] * len(states)
        found: dict[tuple[int, Problem, str], list[int]] = {}
        for row, (prompt, text) in enumerate(zip(states.prompts(), states.texts(), strict=True)):
            problem = self._problem(prompt)
            code = problem.program(text)
            if code is not None:
                found.setdefault((owners[row], problem, code), []).append(row)
        return found

    def _problem(self, prompt: str) -> Problem:
        at = which(self.asked, prompt)
        if at is None:
            raise UsageError(
                f"tests: none of its tasks has the prompt {prompt[:60]!r}; give tests(task) the run's task."
            )
        problem: Problem = self.tasks[at].meta["problem"]
        return problem

    def _judge(
        self, paid: list[tuple[int, Problem, str]], groups: dict[tuple[int, Problem, str], list[int]], values: Floats
    ) -> None:
        found = shares([(problem, code) for _, problem, code in paid])
        for pair, share in zip(paid, found, strict=True):
            values[groups[pair]] = share if not self.all or np.isnan(share) else float(share == 1.0)

    def forget(self) -> None:
        forget()


def tests(*tasks: Task, all: bool = False) -> Tests:
    """The examples that these programming tasks show, as a reward in [0, 1].

    all: 0 or 1 instead of the share that holds. Preserves nothing. Right on what is shown and wrong elsewhere passes:
    docs/code.md has how often. UsageError for a task that is no programming problem.
    """
    if not tasks:
        raise UsageError("tests() needs the task it checks: call verify.tests(task).")
    for task in tasks:
        if not isinstance(getattr(task, "meta", {}).get("problem"), Problem):
            name = getattr(task, "id", task)
            raise UsageError(
                f"tests: {name!r:.60} is no programming problem; call verify.tests(tasks.load('programs', 1)[0])."
            )
    return Tests(tasks, tuple(task.id for task in tasks), tuple(map(asked_by, tasks)), all)
