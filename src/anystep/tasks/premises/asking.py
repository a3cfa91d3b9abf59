"""What a verifier is shown of a step: what it cites and nothing else, or more, for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from anystep.tasks.premises.program import Statement, premises, statements

Context = Literal["cited", "previous", "whole"]
CONTEXTS: tuple[Context, ...] = ("cited", "previous", "whole")


@dataclass(frozen=True)
class Asked:
    """One check: does `step` follow from the statements in `lines`? `known` are those before the step, by number."""

    lines: tuple[str, ...]
    step: str
    statement: Statement
    known: Mapping[int, Statement]


def asked(prompt: str, chain: str, context: Context = "cited") -> Iterator[Asked]:
    """A check for each step of `chain`.

    "cited": the statements it cites, in the order cited, and its own text, without labels; citations of what is not
    there show nothing. "previous": all premises and all steps before it, as they were written. "whole": all premises
    and all steps, its own among them.
    """
    known = premises(prompt)
    steps = statements(chain)
    everything = [one.raw for one in (*known.values(), *steps)]
    for i, step in enumerate(steps):
        before = dict(known)
        if context == "cited":
            cited = tuple(before[number].text for number in step.cites if number in before)
            yield Asked(cited, step.text, step, before)
        else:
            told = everything if context == "whole" else everything[: len(everything) - len(steps) + i]
            yield Asked(tuple(told), step.raw, step, before)
        if step.number is not None:
            known.setdefault(step.number, step)


def compact(lines: Sequence[str], step: str) -> str:
    """The check as a model of ChainLM's characters reads it: `a=12;b=a+4>b=12+4=16:`"""
    return ";".join(line.rstrip(".") for line in lines) + ">" + step.rstrip(".") + ":"
