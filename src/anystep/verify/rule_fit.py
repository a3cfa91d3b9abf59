"""How many of the seen examples does a rule explain? The interpreter's word, and nothing of the unseen ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.ledger import Limit
from anystep.process import Reward, Scored
from anystep.tasks.rules import Digits, Problem, rule_of
from anystep.tasks.task import Task


@dataclass(frozen=True)
class RuleFit(Reward):
    """The share in [0, 1] of `seen` that a state's rule explains; 0 for a text that is no rule. Costs no tokens."""

    seen: tuple[tuple[Digits, Digits], ...]
    name: str = "rule_fit"

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(np.array([self.fit(text) for text in states.texts()], dtype=np.float64), limit.used)

    def fit(self, text: str) -> float:
        """The share of the seen examples that a text's rule explains."""
        rule = rule_of(text)
        return 0.0 if rule is None else sum(rule.apply(x) == y for x, y in self.seen) / len(self.seen)


def rule_fit(problem: Task | Problem | Sequence[tuple[Digits, Digits]]) -> RuleFit:
    """The reward of a `tasks.rules` problem: its seen examples, explained or not by a symbolic interpreter.

    It is no checker of the answer: of the unseen lists it knows nothing, and a rule that explains all it sees may be
    another than the one that was meant.
    """
    if isinstance(problem, Task):
        problem = problem.meta.get("problem", ())
    seen = problem.seen if isinstance(problem, Problem) else tuple(problem)
    if not seen or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in seen):
        raise UsageError("rule_fit(task): of a task of tasks.rules, or of pairs such as [((3, 1), (1, 3))].")
    return RuleFit(tuple(seen))
