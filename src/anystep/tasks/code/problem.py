"""What a programming problem shows and what it hides; and its Task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anystep.errors import UsageError
from anystep.tasks.code.extract import extract_program
from anystep.tasks.code.spec import Arguments
from anystep.tasks.task import Task

CHAT = {"unit": "completion", "chat": True, "end": ("\n```\n\n",), "max_tokens": 320, "temperature": 0.8}
PLAIN = {
    "unit": "completion",
    "chat": False,
    "end": ("\ndef ", "\nclass ", "\nif ", "```"),  # servers take four at most
    "max_tokens": 320,
    "temperature": 0.8,
}
MOST_PROBES = 100


class Unknown:
    """Stands for an expected value that nobody told."""

    def __repr__(self) -> str:
        return "..."


UNKNOWN = Unknown()


@dataclass(frozen=True, eq=False)
class Case:
    """Arguments and the value expected for them, `UNKNOWN` where only the arguments are known."""

    arguments: Arguments
    expected: Any = UNKNOWN

    @property
    def known(self) -> bool:
        return self.expected is not UNKNOWN

    def call(self, name: str) -> str:
        """As it is written: `add(1, 2)`."""
        return f"{name}({', '.join(map(repr, self.arguments))})"


@dataclass(frozen=True, eq=False)
class Cases:
    """Hidden tests: arguments that are sent to a program, and values that the parent compares what comes back with."""

    cases: tuple[Case, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Checked:
    """Hidden tests that are code: a function `check(candidate)` full of asserts, run apart from the candidate.

    code: the code that stands before `check`, such as helpers of the prompt that it calls; and `check` itself.
    """

    code: str = field(repr=False)


@dataclass(frozen=True)
class Problem:
    """A function to be written: what is shown of it, and what decides.

    key: tells it from every other. before: the code a text may continue, its signature and docstring last. shown: the
    examples of the prompt. hidden: the tests that are the truth; they never reach a candidate's process.
    """

    key: str
    entry: str
    before: str = field(compare=False, repr=False)
    shown: tuple[Case, ...] = field(compare=False, repr=False)
    hidden: Cases | Checked = field(compare=False, repr=False)

    def program(self, text: str) -> str | None:
        """The program that a model's text gives, None where it gives none."""
        return extract_program(text, self.entry, self.before)


def task_of(
    problem: Problem,
    *,
    id: str,
    family: str,
    style: str,
    reference: str,
    level: int = 0,
    probes: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> Task:
    """The task of writing this function. style: "chat" or "plain". probes: how many more arguments a vote looks at."""
    from anystep.tasks.code.judge import behaviours, verdicts
    from anystep.tasks.code.probe import probed

    if isinstance(probes, bool) or not isinstance(probes, int) or not 0 <= probes <= MOST_PROBES:
        raise UsageError(f"probes={probes!r}: a whole number up to {MOST_PROBES}, as in programs(10, probes=8)")

    return Task(
        id=id,
        family=family,
        prompt=prompt_of(problem, style),
        reference=reference,
        extract=partial(_first, behaviours, probed(problem, probes) if probes else problem),
        score=partial(_first, verdicts, problem),
        generation=dict(CHAT if style == "chat" else PLAIN),
        level=level,
        meta={"problem": problem, **(meta or {})},
    )


def _first(judge: Any, problem: Problem, text: str) -> Any:
    return judge([(problem, text)])[0]


def prompt_of(problem: Problem, style: str) -> str | tuple[dict[str, Any], ...]:
    """The problem as chat messages, or as code to go on with."""
    if style == "plain":
        return problem.before
    asked = (
        f"Write the Python function `{problem.entry}`.\n\n```python\n{problem.before.strip()}\n```\n\n"
        "Answer with the whole function in one code block, and nothing else."
    )
    return ({"role": "user", "content": asked},)
