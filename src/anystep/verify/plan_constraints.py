"""Does a plan keep to what was said? Verifiers that read a plan beside extracted constraints, or beside the text."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from anystep.drive import drive
from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.loading import load
from anystep.language.prefill import read_each
from anystep.language.process import LanguageProcess
from anystep.language.train.planners import BAR, KEPT, PlannerRecipe, planner, verdicts
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Floats, Reward, Scored
from anystep.run import Run
from anystep.search import sample
from anystep.tasks.chains import CHAIN_END, STEP_END
from anystep.tasks.planning import Constraint, parse
from anystep.tasks.task import Task


@dataclass(frozen=True)
class PlanVerifier(Reward):
    """The probability that a plan, perhaps unfinished, breaks nothing, read on -100 to 100; an unbegun one has 0.

    Given constraints it is guided: it reads plan and constraints in one pass, and the probability is that it says of
    each in turn that it is kept. Without any it reads plan and text, and says it once of the whole. All it reads is
    prompt tokens on the ledger.
    """

    prompt: str
    constraints: tuple[Constraint, ...]
    name: str
    range = (-100.0, 100.0)
    engine: Any = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.zeros(len(states))
        plans = [_finished(text) for text in states.texts()]
        rows = np.flatnonzero([bool(plan) for plan in plans])
        if len(rows):
            values[rows] = self._read([plans[row] for row in rows], rows, limit)
        return Scored(values, limit.used)

    def _read(self, plans: Sequence[str], rows: Any, limit: Limit) -> Floats:
        """The values of plans, NaN of those whose reading was refused."""
        texts = [self.asked(plan) for plan in plans]
        sequences = [tuple(self.engine.tokenizer.encode(text)) for text, _ in texts]

        def read(hidden: Tensor, i: int) -> float:
            return 200 * math.prod(self._letters(hidden, texts[i][1])) - 100

        return read_each(self.engine, sequences, rows, limit, read)

    def _letters(self, hidden: Tensor, ends: tuple[int, ...]) -> list[float]:
        """Behind each of these positions, the probability of the letter that says that all is well."""
        letter = self.engine.tokenizer.encode(KEPT)[0]
        found: list[float] = self.engine.model.logits(hidden[list(ends)]).softmax(-1)[:, letter].tolist()
        return found

    def asked(self, plan: str) -> tuple[str, tuple[int, ...]]:
        """What the verifier reads, and the positions behind which it says a letter."""
        if not self.constraints:
            text = f"{plan}{BAR}{self.prompt}"
            return text, (len(text) - 1,)
        prompt, said = verdicts(plan, self.constraints, [])
        whole = prompt + said
        ends = [i for i in range(len(prompt), len(whole)) if whole[i] == KEPT]
        return whole[: ends[-1]], tuple(i - 1 for i in ends)

    def feedback(self, plan: str) -> str:
        """What the verifier thinks that a plan breaks, in words and at nobody's cost: which constraints, where it was
        given some."""
        text, ends = self.asked(plan)
        found: list[float] = []

        def read(hidden: Tensor, i: int) -> float:
            found.extend(self._letters(hidden, ends))
            return 0.0

        sequence = tuple(self.engine.tokenizer.encode(text))
        read_each(self.engine, [sequence], np.arange(1), Limit(Ledger(), self.name), read)
        named = self.constraints or ("something that was said",)
        broken = [str(c) for c, p in zip(named, found, strict=True) if p < 0.5]
        return f"breaks {', '.join(broken)}" if broken else "breaks nothing"

    def forget(self) -> None:
        self.engine.cache.trim(0)


def _finished(plan: str) -> str:
    body, stop, _ = plan.partition(CHAIN_END)
    return body + stop if stop else body[: body.rfind(STEP_END) + 1]


@functools.cache
def loaded(role: Literal["guided", "unguided", "extractor"]) -> Engine:
    """The engine of one of the recipes' models, trained the first time."""
    return load(planner(PlannerRecipe(role)))


def constraints_of(task: Task | str, extractor: Engine | None = None) -> tuple[tuple[Constraint, ...], Cost]:
    """The constraints that an extractor finds in a problem's text, in one call at temperature 0, and what that cost.

    extractor: an engine, by default the one that `language.train.planners` trains.
    """
    process = LanguageProcess(
        extractor or loaded("extractor"), _prompt(task), unit="completion", end=(CHAIN_END,), temperature=0.0,
        max_tokens=60,
    )  # fmt: skip
    run = Run(process, sample(n=1))
    (answer,) = drive(run)
    said = (answer.text or "").partition(CHAIN_END)[0].split(",")
    return tuple(c for c in map(parse, dict.fromkeys(said)) if c is not None), run.spent


def plan_constraints(
    task: Task | str, constraints: Sequence[Constraint] = (), verifier: Engine | None = None
) -> PlanVerifier:
    """The verifier of a `tasks.planning` problem: by constraints, such as `constraints_of(task)` extracts, or with none
    by the problem's text alone.

    verifier: an engine, by default the guided or the unguided one that `language.train.planners` trains. Raises
    UsageError for what is no problem.
    """
    prompt, guided, name = _prompt(task), bool(constraints), "plan_constraints" if constraints else "plan_text"
    engine = verifier or loaded("guided" if guided else "unguided")
    return PlanVerifier(prompt, tuple(constraints), name, engine=engine)


def _prompt(task: Task | str) -> str:
    prompt = task.prompt if isinstance(task, Task) else task
    if not isinstance(prompt, str) or not prompt.endswith("?"):
        raise UsageError(
            f"plan_constraints({prompt!r:.40}): a problem's text, such as plan_constraints('Cabc;a busy 3?')."
        )
    return prompt
