"""The puzzles: `k371?` asks where one comes to from k by the turns 3, 7 and 1. A step is the entity that a hop leads
to, a full stop stands behind the last one; what is remembered stands in brackets before the step that needs it, as in
`(k3m)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from string import ascii_lowercase

import numpy as np

from anystep.errors import UsageError
from anystep.tasks.chains import CHAIN_END, PROMPT_END, SPLITS, STEP_END, split_of
from anystep.tasks.hops.facts import Facts
from anystep.tasks.task import Task

ENTITIES, TURNS = ascii_lowercase, "0123456789"
OPEN, CLOSE = "(", ")"
REMEMBERED = re.compile(r"\(([a-z0-9]*)\)")


def _words(text: str) -> list[str]:
    """A fact or a query by its letters and by what stands side by side: `k3m` is k, 3, m, k3 and 3m."""
    return [*text, *(text[i : i + 2] for i in range(len(text) - 1))]


@dataclass(frozen=True)
class Puzzle:
    """Where to begin, the turns to take, and the facts: `leads[i, j]` is where turn j of entity i leads to."""

    start: str
    turns: str
    seed: int

    @cached_property
    def leads(self) -> np.ndarray:
        return np.random.default_rng(self.seed).integers(0, len(ENTITIES), (len(ENTITIES), len(TURNS)))

    def leads_to(self, entity: str, turn: str) -> str:
        return ENTITIES[int(self.leads[ENTITIES.index(entity), TURNS.index(turn)])]

    @cached_property
    def facts(self) -> Facts:
        return Facts(tuple(f"{e}{t}{self.leads_to(e, t)}" for e in ENTITIES for t in TURNS), _words)

    @property
    def prompt(self) -> str:
        return f"{self.start}{self.turns}{PROMPT_END}"

    @property
    def path(self) -> str:
        """The entities that the hops lead to, in order."""
        found = self.start
        for turn in self.turns:
            found += self.leads_to(found[-1], turn)
        return found[1:]

    def needed(self) -> list[str]:
        """The fact of every hop."""
        line = self.start + self.path
        return [f"{line[i]}{turn}{line[i + 1]}" for i, turn in enumerate(self.turns)]

    def query(self, text: str) -> str:
        """What a partial output asks for next: the entity that it has come to, and the turn to take from there; nothing
        where there is none, or where a step is no entity."""
        said = written(text)
        line = [self.start, *said]
        if CHAIN_END in text or len(said) >= len(self.turns) or any(len(step) != 1 for step in line):
            return ""
        return f"{line[-1]}{self.turns[len(said)]}"

    def supported(self, text: str) -> float:
        """The share of the output's steps that a remembered fact says, 1 for none: read off the text alone, without
        the base. An output that ends before its last hop, or goes on behind it, has none."""
        said, known = written(text), set(remembered(text))
        ended = CHAIN_END in text
        if len(said) > len(self.turns) or (ended and len(said) != len(self.turns)):
            return 0.0
        line = [self.start, *said]
        hops = [f"{a}{turn}{b}" in known for a, turn, b in zip(line, self.turns, said, strict=False)]
        return float(np.mean(hops)) if hops else 1.0


def written(text: str) -> list[str]:
    """The steps of an output, without what is remembered between them."""
    body = REMEMBERED.sub("", text).partition(CHAIN_END)[0]
    return [step for step in body.split(STEP_END) if step]


def remembered(text: str) -> list[str]:
    """The facts that an output remembers, in order."""
    return REMEMBERED.findall(text)


def puzzles(split: str, rng: Random, lengths: Sequence[int] = (3, 4)) -> Iterator[Puzzle]:
    """Endless puzzles of one split, each with a base of facts of its own."""
    while True:
        puzzle = Puzzle(rng.choice(ENTITIES), "".join(rng.sample(TURNS, rng.choice(lengths))), rng.randrange(1 << 30))
        if split_of(f"{puzzle.prompt}{puzzle.seed}") == split:
            yield puzzle


def task(puzzle: Puzzle) -> Task:
    """The puzzle as a task, its answer the last entity."""

    def extract(text: str) -> str | None:
        said = written(text)
        return said[-1] if CHAIN_END in text and said else None

    def score(text: str) -> float:
        return float(extract(text) == puzzle.path[-1])

    generation = {"unit": "step", "stop": STEP_END, "end": CHAIN_END, "max_tokens": 96}
    return Task(
        f"{puzzle.prompt}{puzzle.seed}",
        "hops",
        puzzle.prompt,
        puzzle.path[-1],
        extract,
        score,
        generation=generation,
        meta={"puzzle": puzzle},
    )


def hops(n: int, split: str = "test", seed: int = 0) -> list[Task]:
    """`n` puzzles of a split as tasks. UsageError for an unknown split or no puzzles."""
    if split not in SPLITS or n < 1:
        raise UsageError(f"hops(n={n!r}, split={split!r}): n is 1 or more, split one of {', '.join(SPLITS)}.")
    found = puzzles(split, Random(f"hops:{split}:{seed}"))
    return [task(next(found)) for _ in range(n)]
