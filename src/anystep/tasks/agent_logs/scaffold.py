"""What a model writes of a failed run: the cause of each suspect step, its correction, and what would have followed.

The three parts of "Abduct, Act, Predict" (2025), arXiv 2509.10401, in ChainLM's characters, a suspect a line:
`3o340;c=b+4>343;a=c-b>443&` says that step 3 took another operation, that from registers 3, 4 and 0 it should have been
`c=b+4`, which leaves 3, 4 and 3, that turn 4 (`a=c-b`) would then have left 4, 4 and 3, and that the run would have
succeeded (`!`: would not).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from anystep.errors import UsageError
from anystep.tasks.agent_logs.log import AgentLog, Instruction, Registers, Turn, digits, instruction

AVERTED, NOT_AVERTED = "&", "!"
TURN = r"\d{3};[a-c]=[a-c\d][-+][a-c\d]>"
SUSPECT = re.compile(rf"(\d)([tos])((?:{TURN})+)(\d{{3}})([&!])")


@dataclass(frozen=True)
class Suspect:
    """One step that is not as it should be: why (abduct), the turn that should have been (act), the registers before
    and after it and after each later turn, and whether the run would succeed (predict).

    instructions: the correction's and those of the later turns, as they were done.
    """

    step: int
    cause: str
    instructions: tuple[Instruction, ...]
    registers: tuple[Registers, ...]
    averted: bool

    @property
    def correction(self) -> Instruction:
        return self.instructions[0]

    def __str__(self) -> str:
        mark = AVERTED if self.averted else NOT_AVERTED
        turns = zip(self.registers, self.instructions, strict=False)
        done = "".join(f"{digits(before)};{instruction}>" for before, instruction in turns)
        return f"{self.step}{self.cause}{done}{digits(self.registers[-1])}{mark}"


class Predictor(Protocol):
    """What a corrected turn leads to: the registers before it and after it and every later turn, and whether the run
    succeeds."""

    def __call__(self, log: AgentLog, step: int, correction: Turn) -> tuple[tuple[Registers, ...], bool]: ...


def executed(log: AgentLog, step: int, correction: Turn) -> tuple[tuple[Registers, ...], bool]:
    """The predictor that does not guess: the log is executed again from that step."""
    turns = (*log.turns[:step], correction, *log.turns[step + 1 :])
    return tuple(log.states(turns)[step:]), log.outcome(turns) == log.right


def by_replay(log: AgentLog, predict: Predictor = executed) -> tuple[Suspect, ...]:
    """The suspects of a log whose plan is known, in order, up to the first whose correction averts the failure.

    With `executed` its last suspect is the decisive step, exactly.
    """
    found = list[Suspect]()
    for step in log.errors:
        correction = log.corrected(step)
        registers, averted = predict(log, step, correction)
        done = (correction.instruction, *(turn.instruction for turn in log.turns[step + 1 :]))
        found.append(Suspect(step, log.cause(step), done, registers, averted))
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
        step, turns = int(match[1]), [turn.split(";") for turn in match[3].split(">")[:-1]]
        if step < len(log.turns):
            states = (*(before for before, _ in turns), match[4])
            done = tuple(instruction(text) for _, text in turns)
            registers = tuple(tuple(map(int, state)) for state in states)
            found.append(Suspect(step, match[2], done, registers, match[5] == AVERTED))
    return tuple(found)
