"""Logs of agents that failed together, which can be executed again: which step made them fail?

Four agents share three registers that hold 0 to 4. In each of five turns an agent is told what to do, and the log says
what it did; some do another thing than they were told. Most of these errors do no harm, because what they touch is
overwritten or cancels out. One is decisive: corrected, and with every later turn done as it was done before, the run
ends in the right value. Which one it is, is found by executing the log again with each step corrected, so labels are
exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from random import Random
from typing import Any

from anystep.errors import UsageError
from anystep.tasks._draw import check_count, check_split, rng, split_of
from anystep.tasks.task import Task

REGISTERS = "abc"
AGENTS = {"A": "analyst", "C": "calculator", "L": "librarian", "P": "planner"}
CAUSES = {
    "t": "wrote to another register",
    "o": "took another operation",
    "s": "took another operand",
}
TURNS = 5
VALUES = 5  # a register holds 0 to 4
ERRORS = (3, 4)  # fewest and most in one log, the decisive one among them
ANSWER = re.compile(r"#(\d)([ACLP])")
_OPERATIONS = "+-"
Registers = tuple[int, ...]


@dataclass(frozen=True)
class Instruction:
    """`target = left operation right`, modulo 5; `left` and `right` are registers or digits."""

    target: str
    left: str
    operation: str
    right: str

    def __str__(self) -> str:
        return f"{self.target}={self.left}{self.operation}{self.right}"

    def value(self, registers: Registers) -> int:
        a, b = (registers[REGISTERS.index(x)] if x in REGISTERS else int(x) for x in (self.left, self.right))
        return (a + b if self.operation == "+" else a - b) % VALUES

    def reads(self) -> set[str]:
        return {self.left, self.right} & set(REGISTERS)


@dataclass(frozen=True)
class Turn:
    """What an agent did."""

    agent: str
    instruction: Instruction

    def after(self, registers: Registers) -> Registers:
        written = self.instruction.value(registers)
        at = REGISTERS.index(self.instruction.target)
        return (*registers[:at], written, *registers[at + 1 :])


@dataclass(frozen=True)
class AgentLog:
    """A failed run: the registers at its start, the plan, the register that holds the result, and the turns taken."""

    start: Registers
    plan: tuple[Instruction, ...]
    goal: str
    turns: tuple[Turn, ...]

    @property
    def right(self) -> int:
        """The result that the plan gives."""
        return self.outcome(tuple(self.corrected(i) for i in range(len(self.turns))))

    @property
    def errors(self) -> tuple[int, ...]:
        """The turns that are not the plan's."""
        return tuple(i for i, turn in enumerate(self.turns) if turn != self.corrected(i))

    def corrected(self, at: int) -> Turn:
        """The turn as the plan would have it."""
        return Turn(self.turns[at].agent, self.plan[at])

    def states(self, turns: tuple[Turn, ...] | None = None) -> list[Registers]:
        """The registers before each turn and at the end."""
        found = [self.start]
        for turn in self.turns if turns is None else turns:
            found.append(turn.after(found[-1]))
        return found

    def outcome(self, turns: tuple[Turn, ...] | None = None) -> int:
        return self.states(turns)[-1][REGISTERS.index(self.goal)]

    def averted(self, at: int) -> bool:
        """Whether correcting this turn alone, every other being done as it was, makes the run succeed: executed."""
        turns = (*self.turns[:at], self.corrected(at), *self.turns[at + 1 :])
        return self.outcome(turns) == self.right

    @property
    def decisive(self) -> int | None:
        """The earliest turn whose correction averts the failure, by trying every turn; None where none does."""
        return next((i for i in range(len(self.turns)) if self.averted(i)), None)

    def cause(self, at: int) -> str:
        """Which of `CAUSES` makes this turn differ from the plan; the first that applies, "" where it does not."""
        done, due = self.turns[at].instruction, self.plan[at]
        if done.target != due.target:
            return "t"
        if done.operation != due.operation:
            return "o"
        return "s" if done != due else ""

    def prompt(self) -> str:
        """The run in ChainLM's characters: start, goal and right result, then the turns, a `?` at the end. A turn is
        its number, the agent, what it was told, what it did instead behind a `/`, and the registers after it."""
        log = []
        for i, (turn, told, after) in enumerate(zip(self.turns, self.plan, self.states()[1:], strict=True)):
            did = "" if turn.instruction == told else f"/{turn.instruction}"
            log.append(f"{i}{turn.agent}{told}{did}:{digits(after)}")
        return f"V{digits(self.start)}>{self.goal}{self.right}:{','.join(log)}?"

    def transcript(self) -> str:
        """The run in words, for a model that reads them: the task and the numbered log."""
        log = "\n".join(
            f"Step {i} - {AGENTS[turn.agent]}, told to do {told}: did {turn.instruction}, after which {_words(after)}"
            for i, (turn, told, after) in enumerate(zip(self.turns, self.plan, self.states()[1:], strict=True))
        )
        return (
            f"Agents share registers that hold 0 to 4 (arithmetic modulo 5). At the start {_words(self.start)}. "
            f"Done as told, {self.goal} ends as {self.right}. What happened:\n{log}\n"
            f"{self.goal} ended as {self.outcome()}: the run failed."
        )

    @classmethod
    def read(cls, prompt: str) -> AgentLog:
        """The log of a numbered prompt; UsageError for text that is none."""
        match = re.fullmatch(r"V(\d{3})>([a-c])\d:(.*)\?", prompt)
        try:
            if match is None:
                raise ValueError
            start = tuple(map(int, match[1]))
            plan, log, registers = list[Instruction](), list[Turn](), start
            for line in match[3].split(","):
                what, _, after = line[2:].partition(":")
                told, _, did = what.partition("/")
                turn = Turn(line[1], instruction(did or told))
                registers = turn.after(registers)
                if digits(registers) != after:
                    raise ValueError
                plan.append(instruction(told))
                log.append(turn)
        except (ValueError, IndexError):
            raise UsageError(f"{prompt[:60]!r} is no log; AgentLog.read(log.prompt()) reads one.") from None
        return cls(start, tuple(plan), match[2], tuple(log))


def digits(registers: Registers) -> str:
    return "".join(map(str, registers))


def _words(registers: Registers) -> str:
    return ", ".join(f"{name} = {value}" for name, value in zip(REGISTERS, registers, strict=True))


def instruction(text: str) -> Instruction:
    """An instruction as it is written, `b=a+4`; ValueError for what is none."""
    match = re.fullmatch(r"([a-c])=([a-c\d])([-+])([a-c\d])", text)
    if match is None:
        raise ValueError(text)
    return Instruction(*match.groups())


def draw(random: Random) -> AgentLog:
    """A failed run with exactly one decisive error and others that do no harm."""
    while True:
        start = tuple(random.randrange(VALUES) for _ in REGISTERS)
        plan = tuple(_drawn(random) for _ in range(TURNS))
        turns = [Turn(random.choice(sorted(AGENTS)), instruction) for instruction in plan]
        for at in random.sample(range(TURNS - 1), random.randint(*ERRORS)):
            turns[at] = _spoilt(random, turns[at])
        log = AgentLog(start, plan, plan[-1].target, tuple(turns))
        if log.outcome() != log.right and sum(map(log.averted, log.errors)) == 1 and len(log.errors) >= ERRORS[0]:
            return log


def _drawn(random: Random) -> Instruction:
    left, right = (
        random.choice(REGISTERS) if random.random() < often else str(random.randrange(VALUES)) for often in (0.7, 0.4)
    )
    return Instruction(random.choice(REGISTERS), left, random.choice(_OPERATIONS), right)


def _spoilt(random: Random, turn: Turn) -> Turn:
    """The turn with one error, each cause as likely."""
    due, other = turn.instruction, partial(_other, random)
    match random.choice(sorted(CAUSES)):
        case "t":
            return replace(turn, instruction=replace(due, target=other(REGISTERS, due.target)))
        case "o":
            return replace(turn, instruction=replace(due, operation=other(_OPERATIONS, due.operation)))
        case _:
            return replace(turn, instruction=replace(due, left=other(REGISTERS, due.left)))


def _other(random: Random, all_: str, but: str) -> str:
    return random.choice([one for one in all_ if one != but])


def logs(split: str, seed: int = 0) -> Iterator[AgentLog]:
    """Endless logs of a split, which is decided by start and plan: no plan stands in two."""
    random = rng("agent-logs", seed, split)
    while True:
        log = draw(random)
        if split_of("agent-logs", log.start, *map(str, log.plan)) == split:
            yield log


def agent_logs(n: int, seed: int = 0, split: str = "test") -> list[Task]:
    """`n` failed runs as tasks: the answer is `#` with the decisive step and its agent, `#3C`.

    `Task.score` is 1.0 where both are right, `meta["log"]` the `AgentLog`. Raises UsageError
    for a count or split that cannot be meant.
    """
    call = f'agent_logs({n!r}, split="test")'
    check_count(n, call)
    check_split(split, call)
    return [_task(i, log, split, seed) for i, log in enumerate(islice(logs(split, seed), n))]


def _task(i: int, log: AgentLog, split: str, seed: int) -> Task:
    decisive = log.decisive
    assert decisive is not None
    reference = f"#{decisive}{log.turns[decisive].agent}"
    meta: dict[str, Any] = {"log": log, "question": log.transcript()}
    return Task(
        f"agent-logs-{split}-{seed}-{i}",
        "agent-logs",
        log.prompt(),
        reference,
        extract=attributed,
        score=partial(_score, reference),
        generation={"unit": "completion", "stop": ".", "max_tokens": 120},
        meta=meta,
    )


def _score(reference: str, text: str) -> float:
    return float(attributed(text) == reference)


def attributed(text: str) -> str | None:
    """The last step and agent that a text names, as `#3C`; None where it names none."""
    found = ANSWER.findall(text)
    return f"#{found[-1][0]}{found[-1][1]}" if found else None
