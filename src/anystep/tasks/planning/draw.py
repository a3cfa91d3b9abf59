"""Problems of three kinds, trips, meetings and calendars, whose difficulty is the number of their constraints.

A plan is drawn first and constraints that it keeps afterwards, so that every problem has a solution. The three say the
same things in different words, among remarks that constrain nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from anystep.errors import UsageError
from anystep.tasks.chains import CHAIN_END, SPLITS, STEP_END, split_of
from anystep.tasks.planning.constraints import ITEMS, SLOTS, Constraint, listed, read_plan
from anystep.tasks.task import Task

DOMAINS: dict[str, dict[str, str]] = {  # what each says, {a} and {b} the item and the other
    "C": {"!": "{a} busy {b}", ">": "{a} after {b}", "<": "{a} till {b}", "<i": "{a} then {b}", "*": "{a} by {b}"},
    "V": {"!": "{a} out {b}", ">": "{a} past {b}", "<": "{a} leaves {b}", "<i": "{a} ahead {b}", "*": "{a} near {b}"},
    "P": {"!": "{a} shut {b}", ">": "{a} opens {b}", "<": "{a} ends {b}", "<i": "{a} to {b}", "*": "{a} joins {b}"},
}
REMARKS = ("{a} likes {b}", "{a} had {b}", "{a} is tall")
GENERATION = {
    "unit": "step",
    "stop": STEP_END,
    "end": (CHAIN_END,),
    "max_tokens": 24,
    "at_cap": "failed",
    "chat": False,
}
FEWEST, MOST = 3, 9  # constraints


@dataclass(frozen=True)
class Problem:
    """A domain's letter, the items to be placed, what they must keep to in the order it is said, and the text."""

    domain: str
    items: str
    constraints: tuple[Constraint, ...]
    prompt: str
    plan: tuple[tuple[str, int], ...]

    @property
    def reference(self) -> str:
        return STEP_END.join(f"{a}{s}" for a, s in self.plan) + CHAIN_END

    def broken(self, text: str) -> list[Constraint] | None:
        """The constraints that a plan, perhaps unfinished, breaks; None for what is no plan."""
        found = read_plan(text)
        if found is None or set(found[0]) - set(self.items):
            return None
        return [c for c in self.constraints if c.broken(found[0])]

    def score(self, text: str) -> float:
        """1 for a finished plan that places every item and breaks nothing, else 0."""
        found = read_plan(text)
        return float(found is not None and found[1] and set(found[0]) == set(self.items) and not self.broken(text))


def draw(rng: Random, constraints: int) -> Problem:
    """A problem with about so many constraints."""
    items = ITEMS[: rng.choice((3, 4, 5))]
    slots = dict(zip(items, rng.sample(range(1, len(SLOTS) + 1), len(items)), strict=True))
    found: dict[str, Constraint] = {}
    for _ in range(200):
        c = _any(rng, items)
        if len(found) < constraints and not c.broken(slots):
            found[str(c)] = c
    said = list(found.values())
    domain = rng.choice(list(DOMAINS))
    sentences = [_said(domain, c) for c in said]
    for _ in range(rng.choice((0, 1, 2))):
        remark = rng.choice(REMARKS).format(a=rng.choice(items), b=rng.choice(SLOTS))
        sentences.insert(rng.randrange(len(sentences) + 1), remark)
    return Problem(domain, items, tuple(said), f"{domain}{items};{';'.join(sentences)}?", tuple(slots.items()))


def _any(rng: Random, items: str) -> Constraint:
    item, kind = rng.choice(items), rng.choice("!!><i*")
    if kind in "i*":
        return Constraint(item, "<" if kind == "i" else "*", rng.choice([b for b in items if b != item]))
    return Constraint(item, kind, rng.choice({"!": SLOTS, ">": "1234", "<": "3456"}[kind]))


def _said(domain: str, c: Constraint) -> str:
    kind = "<i" if c.kind == "<" and c.other in ITEMS else c.kind
    return DOMAINS[domain][kind].format(a=c.item, b=c.other)


def problems(split: str, rng: Random) -> Iterator[Problem]:
    """Endless problems of one split, as many of each number of constraints."""
    while True:
        problem = draw(rng, rng.randint(FEWEST, MOST))
        if split_of(f"{problem.items};{listed(sorted(problem.constraints, key=str))}") == split:
            yield problem


def spoiled(problem: Problem, rng: Random) -> str:
    """A plan, perhaps unfinished or wrong, as a planner writes them: some items are elsewhere than they fit."""
    slots = dict(problem.plan)
    for _ in range(rng.choice((0, 1, 1, 2))):
        item = rng.choice(problem.items)
        free = [s for s in range(1, len(SLOTS) + 1) if s not in slots.values()]
        slots[item] = rng.choice(free)
    if rng.random() < 0.15:
        slots = dict(zip(problem.items, rng.sample(range(1, len(SLOTS) + 1), len(problem.items)), strict=True))
    placed = list(slots.items())
    ends = rng.choice((len(placed), len(placed), rng.randint(1, len(placed))))
    body = STEP_END.join(f"{a}{s}" for a, s in placed[:ends])
    return body + (CHAIN_END if ends == len(placed) else STEP_END)


def task(problem: Problem) -> Task:
    """The problem as a task; its score is the exact checker's, which nothing may look at on the way."""

    def extract(text: str) -> str | None:
        found = read_plan(text)
        return None if found is None or not found[1] else " ".join(f"{a}{s}" for a, s in sorted(found[0].items()))

    meta = {"problem": problem}
    level = len(problem.constraints)
    return Task(
        problem.prompt, "planning", problem.prompt, problem.reference, extract, problem.score, None, dict(GENERATION),
        level, meta,
    )  # fmt: skip


def planning(n: int, split: str = "test", seed: int = 0) -> list[Task]:
    """`n` distinct problems of a split as tasks. UsageError for an unknown split or no problems."""
    if split not in SPLITS:
        raise UsageError(f"planning(n, split='test'): split is one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UsageError(f"planning(n=50): n is a whole number, 1 or more, got {n!r}")
    found: dict[str, Problem] = {}
    for problem in islice(problems(split, Random(f"{split}:{seed}")), 100 * n):
        found.setdefault(problem.prompt, problem)
        if len(found) == n:
            break
    return [task(p) for p in found.values()]
