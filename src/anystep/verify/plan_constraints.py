"""Does a plan keep to what was said? Verifiers that read a plan beside extracted constraints, or beside the text."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from anystep.errors import UsageError
from anystep.keys import roots
from anystep.language.engine.engine import Engine
from anystep.language.loading import load
from anystep.language.prefill import read_each
from anystep.language.process import LanguageProcess
from anystep.language.train.planners import BAR, KEPT, PlannerRecipe, planner, verdicts
from anystep.ledger import Ledger, Limit
from anystep.process import Floats, Reward, Scored
from anystep.tasks.chains import CHAIN_END, STEP_END
from anystep.tasks.planning import Constraint, parse
from anystep.tasks.task import Task


@dataclass(frozen=True)
class PlanVerifier(Reward):
    """The probability that a plan, perhaps unfinished, breaks nothing, read on -100 to 100; an unbegun one has 0.

    With an extractor it is guided: the problem's constraints are extracted once, at temperature 0, when the first plan
    is scored and paid with it, and the verifier reads plan and constraints in one pass; the probability is that it says
    of each in turn that it is kept. Without one it reads plan and text, and says it once of the whole. All it reads is
    prompt tokens on the ledger.
    """

    prompt: str
    name: str
    range = (-100.0, 100.0)
    engine: Any = field(default=None, compare=False, repr=False)
    extractor: Any = field(default=None, compare=False, repr=False)
    known: dict[str, tuple[Constraint, ...]] = field(default_factory=dict, compare=False, repr=False)

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.zeros(len(states))
        plans = [_finished(text) for text in states.texts()]
        rows = np.flatnonzero([bool(plan) for plan in plans])
        constraints = self.constraints(limit.of(rows[:1])) if self.extractor is not None and len(rows) else ()
        if constraints is None:
            values[rows] = np.nan
        elif len(rows):
            values[rows] = self._read([plans[row] for row in rows], rows, constraints, limit)
        return Scored(values, limit.used)

    def constraints(self, limit: Limit) -> tuple[Constraint, ...] | None:
        """What the extractor finds in the problem, paid when it is first wanted; None where that was refused."""
        if self.prompt not in self.known:
            process = LanguageProcess(
                self.extractor, self.prompt, unit="completion", end=(CHAIN_END,), temperature=0.0, max_tokens=60
            )
            keys = roots(0, (0, 0), np.arange(1))
            made = process.step(process.start(keys, limit).states, keys, limit, "done")
            if made.cut is not None and made.cut.any():
                return None
            said = process.texts(made.states)[0].partition(CHAIN_END)[0].split(",")
            self.known[self.prompt] = tuple(c for c in map(parse, dict.fromkeys(said)) if c is not None)
        return self.known[self.prompt]

    def _read(self, plans: Sequence[str], rows: Any, constraints: tuple[Constraint, ...], limit: Limit) -> Floats:
        """The values of plans, NaN of those whose reading was refused."""
        texts = [self.asked(plan, constraints) for plan in plans]
        sequences = [tuple(self.engine.tokenizer.encode(text)) for text, _ in texts]

        def read(hidden: Tensor, i: int) -> float:
            return 200 * math.prod(self._letters(hidden, texts[i][1])) - 100

        return read_each(self.engine, sequences, rows, limit, read)

    def _letters(self, hidden: Tensor, ends: tuple[int, ...]) -> list[float]:
        """Behind each of these positions, the probability of the letter that says that all is well."""
        letter = self.engine.tokenizer.encode(KEPT)[0]
        found: list[float] = self.engine.model.logits(hidden[list(ends)]).softmax(-1)[:, letter].tolist()
        return found

    def asked(self, plan: str, constraints: tuple[Constraint, ...]) -> tuple[str, tuple[int, ...]]:
        """What the verifier reads, and the positions behind which it says a letter."""
        if self.extractor is None or not constraints:
            text = f"{plan}{BAR}{self.prompt}"
            return text, (len(text) - 1,)
        prompt, said = verdicts(plan, constraints, [])
        text = (prompt + said).rstrip(CHAIN_END)[:-1]
        ends = [i for i in range(len(prompt), len(prompt + said)) if (prompt + said)[i] == KEPT]
        return text, tuple(i - 1 for i in ends)

    def feedback(self, plan: str) -> str:
        """What the verifier thinks that a plan breaks, in words and at nobody's cost: the constraints, where it is
        guided and has scored a plan of its problem."""
        constraints = self.known.get(self.prompt, ())
        text, ends = self.asked(plan, constraints)
        found: list[float] = []

        def read(hidden: Tensor, i: int) -> float:
            found.extend(self._letters(hidden, ends))
            return 0.0

        sequence = tuple(self.engine.tokenizer.encode(text))
        read_each(self.engine, [sequence], np.arange(1), Limit(Ledger(), self.name), read)
        named = constraints or ("something that was said",)
        broken = [str(c) for c, p in zip(named, found, strict=True) if p < 0.5]
        return f"breaks {', '.join(broken)}" if broken else "breaks nothing"

    def forget(self) -> None:
        self.known.clear()
        self.engine.cache.trim(0)
        if self.extractor is not None:
            self.extractor.cache.trim(0)


def _finished(plan: str) -> str:
    body, stop, _ = plan.partition(CHAIN_END)
    return body + stop if stop else body[: body.rfind(STEP_END) + 1]


@functools.cache
def loaded(role: Literal["guided", "unguided", "extractor"]) -> Engine:
    """The engine of one of the shipped recipes' models, trained the first time."""
    return load(planner(PlannerRecipe(role)))


def plan_constraints(
    task: Task | str, guided: bool = True, verifier: str | Path | Engine | None = None, extractor: Engine | None = None
) -> PlanVerifier:
    """The verifier of a `tasks.planning` problem, by constraints extracted from its text, or by the text alone.

    verifier, extractor: engines, or a verifier's card, by default those that `language.train.planners` trains. Raises
    UsageError for what is no problem.
    """
    prompt = task.prompt if isinstance(task, Task) else task
    if not isinstance(prompt, str) or not prompt.endswith("?"):
        raise UsageError(
            f"plan_constraints({prompt!r:.40}): a problem's text, such as plan_constraints('Cabc;a busy 3?')."
        )
    engine = verifier if isinstance(verifier, Engine) else load(verifier) if verifier else None
    if guided:
        reads = extractor or loaded("extractor")
        return PlanVerifier(prompt, "plan_constraints", engine=engine or loaded("guided"), extractor=reads)
    return PlanVerifier(prompt, "plan_text", engine=engine or loaded("unguided"))
