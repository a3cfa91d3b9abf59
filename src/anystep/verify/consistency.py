"""Do a chain's steps agree with each other, and does the last one hold? The checks of `search.consistency_check_loop`.

Neither knows the answer, nor runs a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.ledger import Cost, Limit
from anystep.process import Reward, Scored
from anystep.tasks.consistency import contradictions, steps_of
from anystep.tasks.equations import check_equations
from anystep.verify.chain_steps import ChainSteps, loaded


@dataclass(frozen=True)
class Consistency(Reward):
    """The share of a chain's steps that stand before the first contradiction, 1 where there is none; free."""

    question: str
    name: str = "consistency"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(np.array([consistent(self.question, text) for text in states.texts()]), Cost())


@dataclass(frozen=True)
class StepArithmetic(Reward):
    """1 where every equation of the last line that is written holds, else 0; free. A line without any holds."""

    name: str = "step_arithmetic"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        last = [[line for line in text.split("\n") if line.strip()][-1:] for text in states.texts()]
        return Scored(np.array([float(all(map(self.holds, lines))) for lines in last]), Cost())

    def holds(self, line: str) -> bool:
        """Whether every equation of a line is true."""
        return all(equation.true for equation in check_equations(line))


@dataclass(frozen=True)
class StandingSteps(ChainSteps):
    """The share of a chain's steps before the first one after which the learned step reward gives all so far less than
    `threshold`, 1 where there is none. It pays what that reward pays."""

    threshold: float = 0.5

    def together(self, steps: Sequence[float]) -> float:
        return next((i / len(steps) for i, p in enumerate(steps) if p < self.threshold), 1.0)


def consistent(question: str, chain: str) -> float:
    """The share of the steps before the first contradiction, 1 for a chain without any."""
    found = contradictions(question, chain)
    return found[0].step / max(steps_of(question, chain), 1) if found else 1.0


def consistency(question: str) -> Consistency:
    """A global check: whether what a chain's steps use is what its earlier steps derived, over the whole chain.

    It flags contradictions between steps, not false steps and not bad plans; see `tasks.consistency.contradictions`.
    """
    return Consistency(question)


def standing_steps(threshold: float = 0.5, model: str | Path = "chainlm-2m-step-reward") -> StandingSteps:
    """A learned global check for chain models: the place of the first step that the step reward doubts.

    threshold: below which probability of being right so far a step is doubted.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"standing_steps(threshold={threshold!r}): a probability, such as 0.5.")
    engine, judge = loaded(model)
    return StandingSteps(engine.name, prior=1.0, engine=engine, judge=judge, threshold=threshold)


def step_arithmetic() -> StepArithmetic:
    """A gate for single steps: a calculator, which sees whether the last line's equations hold and nothing else."""
    return StepArithmetic()
