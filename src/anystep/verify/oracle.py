"""The exact checker as a reward: an upper bound on what any verifier could do, never a headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.ledger import Cost, Limit
from anystep.process import Reward, Scored
from anystep.tasks.task import Task
from anystep.verify.asked import asked_by, which


@dataclass(frozen=True)
class Oracle(Reward):
    """1 while a state is right as far as it goes, else 0. Free, because nothing like it exists outside a benchmark."""

    tasks: tuple[Task, ...] = field(compare=False, repr=False)
    ids: tuple[str, ...]
    asked: tuple[str, ...]  # what each task asks: its prompt, or its last message's content
    name: str = "oracle"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = [self._value(prompt, text) for prompt, text in zip(states.prompts(), states.texts(), strict=True)]
        return Scored(np.array(values, dtype=np.float64), Cost())

    def _value(self, prompt: str, text: str) -> float:
        at = which(self.asked, prompt)
        if at is None:
            raise UsageError(
                f"oracle: none of its tasks has the prompt {prompt[:60]!r}; give oracle(task) the run's task."
            )
        task = self.tasks[at]
        if task.steps is None:
            return task.score(text)
        labels = task.steps(text)
        return float(all(labels)) if labels else 1.0


def oracle(*tasks: Task | Sequence[Task]) -> Oracle:
    """The exact checker of these tasks, recognised by their prompt; finished states should be scored by it.

    Preserves nothing; it is the bound that a learned reward is shown beside.
    """
    flat = tuple(t for group in tasks for t in ((group,) if isinstance(group, Task) else group))
    if not flat:
        raise UsageError("oracle() needs the task it checks: call verify.oracle(task).")
    return Oracle(flat, tuple(t.id for t in flat), tuple(map(asked_by, flat)))
