"""What a model writes of a failed run: the cause of each suspect step, its correction, and what would have followed.

The three parts of "Abduct, Act, Predict" (2025), arXiv 2509.10401, in ChainLM's characters, a suspect a line:
`2oc=b+4>2359,3357,4457&` says that step 2 took another operation and should have been `c=b+4`, which leaves 3, 5 and 9
in the registers, what turns 3 and 4 would then have left, and that the run would have succeeded (`!`: would not).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Protocol

from anystep.errors import UsageError
from anystep.tasks.agent_logs.log import AgentLog, Registers, Turn, digits, instruction

AVERTED, NOT_AVERTED = "&", "!"
SUSPECT = re.compile(r"(\d)([tosr])([a-c]=[a-c\d][-+][a-c\d])>(\d{4}(?:,\d{4})*)([&!])")


@dataclass(frozen=True)
class Suspect:
    """One step that is not as it should be: why (abduct), the turn that should have been (act), the registers
    after it and after each later turn, and whether the run would succeed (predict)."""

    step: int
    cause: str
    correction: Turn
    registers: tuple[Registers, ...]
    averted: bool

    def __str__(self) -> str:
        mark = AVERTED if self.averted else NOT_AVERTED
        after = ",".join(f"{i}{digits(left)}" for i, left in enumerate(self.registers, self.step))
        return f"{self.step}{self.cause}{self.correction.instruction}>{after}{mark}"


class Predictor(Protocol):
    """What a corrected turn leads to: the registers after it and every later turn, and whether the run succeeds."""

    def __call__(self, log: AgentLog, step: int, correction: Turn) -> tuple[tuple[Registers, ...], bool]: ...


def executed(log: AgentLog, step: int, correction: Turn) -> tuple[tuple[Registers, ...], bool]:
    """The predictor that does not guess: the log is executed again from that step."""
    turns = (*log.turns[:step], correction, *log.turns[step + 1 :])
    return tuple(log.states(turns)[step + 1 :]), log.outcome(turns) == log.right


def by_replay(log: AgentLog, predict: Predictor = executed) -> tuple[Suspect, ...]:
    """The suspects of a log whose plan is known, in order, up to the first whose correction averts the failure.

    With `executed` its last suspect is the decisive step, exactly.
    """
    found = list[Suspect]()
    for step in log.errors:
        correction = log.corrected(step)
        registers, averted = predict(log, step, correction)
        found.append(Suspect(step, log.cause(step), correction, registers, averted))
        if averted:
            break
    return tuple(found)


def scaffold(log: AgentLog) -> str:
    """What a model should write of a log: its suspects, a line each, then the decisive step and its agent."""
    return "".join(f"{suspect}\n" for suspect in by_replay(log)) + verdict(log)


def verdict(log: AgentLog) -> str:
    """The answer alone: `#3C.`"""
    step = log.decisive
    if step is None:
        raise UsageError("no single step of this log is decisive; draw it from tasks.agent_logs.logs(split).")
    return f"#{step}{log.turns[step].agent}."


def read(log: AgentLog, text: str) -> tuple[Suspect, ...]:
    """The suspects that a text names, as far as they can be read; what cannot be is left out."""
    found = list[Suspect]()
    for match in SUSPECT.finditer(text):
        step = int(match[1])
        if step < len(log.turns):
            due = instruction(match[3])
            registers = tuple(tuple(map(int, after[1:])) for after in match[4].split(","))
            correction = replace(log.turns[step], instruction=due, off=0)
            found.append(Suspect(step, match[2], correction, registers, match[5] == AVERTED))
    return tuple(found)
