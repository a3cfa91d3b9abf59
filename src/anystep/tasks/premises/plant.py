"""Chains with errors planted in them, one kind at a time, so that what a verifier passes can be counted by kind.

Later steps go on from a wrong one as if it were right, so they are right given what they cite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from anystep.tasks.premises.check import Fault, follows
from anystep.tasks.premises.draw import LIMIT, Problem, Step
from anystep.tasks.premises.meaning import Meaning, Term, apply

KINDS = ("result", "rule", "operand", "cancelled", "citation", "missing", "nowhere")
CONTENT = KINDS[:4]  # wrong whatever is cited


@dataclass(frozen=True)
class Planted:
    """A chain as text, and the kind of error in each of its steps, None for a step that follows from what it cites.

    "result": a miscalculation. "rule": another operation than the relation's. "operand": a number taken from a
    statement that is not cited. "cancelled": the right result by a wrong equation. "citation": a needed statement's
    number replaced by another's. "missing": a needed one left out. "nowhere": one that does not exist.
    """

    problem: Problem
    steps: tuple[Step, ...]
    kinds: tuple[str | None, ...]

    @property
    def text(self) -> str:
        return self.problem.text(self.steps)


def plant(r: Random, problem: Problem, kinds: tuple[str, ...] = KINDS, errors: int = 1) -> Planted:
    """The problem's chain with `errors` steps gone wrong, of kinds drawn evenly where the story has room for them."""
    while True:
        drawn = r.choices(kinds, k=errors)
        for _ in range(40):
            planted = _try(r, problem, drawn)
            if planted is not None:
                return planted


def _try(r: Random, problem: Problem, kinds: list[str]) -> Planted | None:
    """None where an error is none in the step that was drawn for it, or leads out of range."""
    where = dict(zip(r.sample(range(len(problem.chain)), len(kinds)), kinds, strict=True))
    first = len(problem.premises) + 1
    values = {i: m.value for i, m in enumerate(problem.premises, 1) if m.kind == "given"}
    done: list[Step] = []
    marks: list[str | None] = []
    for i, (cites, said) in enumerate(problem.chain):
        step = cites, _carried(problem, cites, said, values)
        if not 0 <= step[1].value <= LIMIT:
            return None
        if i in where:
            wrong = _wrong(r, where[i], problem, step, first + i)
            if wrong is None:
                return None
            step = wrong
        if not 0 <= step[1].value <= LIMIT:
            return None
        values[first + i] = step[1].value
        done.append(step)
        marks.append(where.get(i))
    known = dict(enumerate((*problem.premises, *(said for _, said in done)), 1))
    for number, ((cites, said), mark) in enumerate(zip(done, marks, strict=True), first):
        there = all(cited < number for cited in cites)
        if (there and follows(said, [known[cited] for cited in cites]) is Fault.NONE) != (mark is None):
            return None
    return Planted(problem, tuple(done), tuple(marks))


def _carried(problem: Problem, cites: tuple[int, ...], said: Meaning, values: dict[int, int]) -> Meaning:
    """The step redone with the counts that the chain has by now."""
    if said.kind == "answer":
        return replace(said, value=values[cites[0]])
    relation = problem.premises[cites[-1] - 1]
    left = values[cites[0]]
    right = values[cites[1]] if isinstance(relation.right, str) else int(relation.right)
    return replace(said, left=left, right=right, value=apply(left, relation.operator, right))


def _wrong(r: Random, kind: str, problem: Problem, step: Step, number: int) -> Step | None:
    """The step with an error of this kind; None where it cannot have one."""
    cites, said = step
    if kind == "result":
        return cites, replace(said, value=_near(r, said.value))
    if kind in ("citation", "missing", "nowhere"):
        return _miscited(r, kind, cites, number), said
    if said.kind == "answer" or not _numbers(problem, said.left, said.right):
        return None
    left, right, operator = int(said.left), int(said.right), said.operator
    if kind == "rule" or (kind == "cancelled" and r.random() < 0.5):
        operator = r.choice([o for o in "+-*" if o != operator])
    elif kind == "operand" and r.random() < 0.5:
        right = r.choice(_numbers(problem, left, right))
    else:
        left = r.choice(_numbers(problem, left, right))
    value = said.value if kind == "cancelled" else apply(left, operator, right)
    return cites, replace(said, left=left, right=right, operator=operator, value=value)


def _miscited(r: Random, kind: str, cites: tuple[int, ...], number: int) -> tuple[int, ...]:
    at = r.randrange(len(cites))
    if kind == "missing":
        return cites[:at] + cites[at + 1 :]
    other = r.choice([n for n in range(1, number) if n not in cites]) if kind == "citation" else number + r.randrange(9)
    return (*cites[:at], other, *cites[at + 1 :])


def _numbers(problem: Problem, *beside: Term) -> list[int]:
    """Numbers that the premises tell, but these."""
    told = {p.value for p in problem.premises if p.kind == "given"}
    told |= {p.right for p in problem.premises if p.kind == "relation" and isinstance(p.right, int)}
    return sorted(told.difference(beside))


def _near(r: Random, value: int) -> int:
    """A count near this one: off by a little, by ten, or with its digits swapped."""
    near = [value + d for d in (-3, -2, -1, 1, 2, 3, -10, 10)] + [value % 10 * 10 + value // 10]
    return r.choice([v for v in near if 0 <= v <= LIMIT and v != value])
