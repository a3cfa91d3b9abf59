"""What a procedure is checked on: a method on a process, with a hook that counts their work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep.ledger import Budget, Ledger
from anystep.procedure import Method
from anystep.process import Process, Reward
from anystep.run import Run
from anystep.testing.checks_process import own_hook
from anystep.testing.counting import Hook

FIGURES = ("tokens", "generated", "evaluations", "calls")


@dataclass(frozen=True)
class Case:
    """A method on a process, a hook that counts the real work of both, and a budget where it would not end alone."""

    method: Method
    process: Process
    hook: Hook
    budget: Budget = Budget()
    most: int = 60  # stops tried of each kind: every one where there are fewer, else so many, evenly spread

    def run(self, budget: Budget | None = None, seed: int = 0, ledger: Ledger | None = None, **options: Any) -> Run:
        return Run(
            self.process, options.pop("method", self.method), budget or self.budget, seed, ledger=ledger, **options
        )

    def stops(self, last: int) -> list[int]:
        """1 to `last`, or `most` of them evenly spread."""
        return sorted(set(np.linspace(1, last, min(last, self.most)).round().astype(int).tolist())) if last else []


ProcedureCheck = Callable[[Case], None]


def case(
    method: Method, process: Process, hook: Hook | None = None, budget: Budget | None = None, most: int = 60
) -> Case:
    """The case that `procedure_checks` take."""
    return Case(method, process, hook or own_hook(process, *parts(method)), budget or Budget(), most)


def parts(method: Method) -> list[Any]:
    """The rewards and processes among a method's options, those of its members included."""
    found: list[Any] = []
    for _, value in method.options:
        if isinstance(value, Method):
            found += parts(value)
        elif isinstance(value, Reward):
            found.append(value.source())
        elif isinstance(value, Process):
            found.append(value)
    return found
