"""Iterate a map: apply one small rule many times. The whole chain is easy, step by step, and as long as one likes.

`V*3+7:17#04?` asks for the fourth value of x -> 3 x + 7 modulo 29 from 17 on, and is answered

    17*3=22+7=00
    00*3=00+7=07
    07*3=21+7=28
    28*3=26+7=04.

A step tells where it starts and where it leads, but not how many have been taken: that stands in no part of a chain,
so whoever forgets its beginning must have noted it. All numbers have two digits and every step is as long as another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from anystep.errors import UsageError
from anystep.tasks.chains.alphabet import CHAIN_END, PROMPT_END, STEP_END
from anystep.tasks.chains.draw import SPLITS, split_of
from anystep.tasks.task import Task

MODULUS = 29
FACTORS = range(2, 10)  # their orders modulo 29 are 7, 14 and 28, so no orbit is shorter than seven values
MOST = 99
LINE = re.compile(r"V\*(\d)\+(\d):(\d\d)#(\d\d)\?")
STEP = re.compile(r"(\d\d)\*(\d)=(\d\d)\+(\d)=(\d\d)")
DONE = re.compile(r"<00,(\d\d)>$")
GENERATION = {"unit": "completion", "stop": STEP_END, "at_cap": "failed", "chat": False}


@dataclass(frozen=True)
class Iteration:
    """Apply x -> factor x + term modulo 29 `times` times, from `value` on."""

    factor: int
    term: int
    value: int
    times: int

    def __str__(self) -> str:
        return f"V*{self.factor}+{self.term}:{self.value:02d}#{self.times:02d}{PROMPT_END}"

    @property
    def key(self) -> str:
        """The rule and where it starts: the same for every number of times, and what decides the split."""
        return f"V*{self.factor}+{self.term}:{self.value:02d}"

    def steps(self) -> list[str]:
        """Every step, without what stands between them."""
        found, x = [], self.value
        for _ in range(self.times):
            product = x * self.factor % MODULUS
            after = (product + self.term) % MODULUS
            found.append(f"{x:02d}*{self.factor}={product:02d}+{self.term}={after:02d}")
            x = after
        return found

    def chain(self) -> str:
        return STEP_END.join(self.steps()) + CHAIN_END


def read(prompt: str) -> Iteration:
    """The problem that a prompt states; UsageError for any other text."""
    match = LINE.fullmatch(prompt)
    if match is None:
        raise UsageError(f"an iteration reads 'V*3+7:17#04?', got {prompt!r:.60}")
    return Iteration(*map(int, match.groups()))


def value_of(step: str) -> str | None:
    """The value a step leads to, None where it is no step."""
    match = STEP.fullmatch(step)
    return match[5] if match else None


def concluded(text: str) -> str | None:
    """The value that a text ends with: that of a last step which ends in the full stop, or of a summary with no step
    left, `<00,04>`. None for other ends."""
    if told := DONE.search(text):
        return told[1]
    body, stop, _ = text.partition(CHAIN_END)
    return value_of(body.rpartition(STEP_END)[2]) if stop else None


def scored(problem: Iteration, text: str) -> float:
    """1 where the text ends with the right value. The way there is not judged: a text may be a chain's last part."""
    return float(concluded(text) == value_of(problem.steps()[-1]))


def checked(problem: Iteration, text: str) -> tuple[bool, ...]:
    """One label a finished step of a whole chain: False from the first error on."""
    body, stop, _ = text.partition(CHAIN_END)
    said = body.split(STEP_END) if stop else body.split(STEP_END)[:-1]
    right, labels = problem.steps(), list[bool]()
    for i, step in enumerate(said):
        ends = bool(stop) and i == len(said) - 1
        labels.append(all(labels) and i < len(right) and step == right[i] and ends == (i == len(right) - 1))
    return tuple(labels)


def problems(split: str, rng: Random, least: int = 1, most: int = MOST, every: int = 1) -> Iterator[Iteration]:
    """Endless problems of one split, of `least` to `most` times, a multiple of `every`; a value that the rule leaves as
    it is starts none."""
    while True:
        factor, term, value = rng.choice(FACTORS), rng.randrange(2, 10), rng.randrange(MODULUS)
        found = Iteration(factor, term, value, every * rng.randint(-(-least // every), most // every))
        if (found.value * (found.factor - 1) + found.term) % MODULUS and split_of(found.key) == split:
            yield found


def task(problem: Iteration) -> Task:
    """The problem as a task. `generation` caps a completion at the whole chain and a step more."""
    size = len(problem.steps()[0]) + 1
    return Task(
        id=str(problem),
        family="iterate",
        prompt=str(problem),
        reference=problem.chain(),
        extract=concluded,
        score=partial(scored, problem),
        steps=partial(checked, problem),
        level=problem.times,
        generation={**GENERATION, "max_tokens": size * (problem.times + 1)},
    )


def iterated(
    n: int, split: str = "test", seed: int = 0, least: int = 1, most: int = MOST, every: int = 1
) -> list[Task]:
    """`n` distinct problems of a split as tasks, `least` to `most` times each, in multiples of `every`; no rule from
    one start is in two splits.

    UsageError for bounds beyond 1..99 and for more problems than there are.
    """
    if split not in SPLITS:
        raise UsageError(f"iterated(n, split='test'): split is one of {', '.join(SPLITS)}, got {split!r}")
    if not 1 <= least <= most <= MOST or not 1 <= every <= most or most // every * every < least:
        raise UsageError(
            f"iterated(n, least={least}, most={most}, every={every}): call iterated(n, least=10, most=20), within 1..99"
        )
    if n < 1:
        raise UsageError(f"iterated(n=50): n is at least 1, got {n}")
    found: dict[Iteration, None] = {}
    repeats = 0
    for problem in problems(split, Random(f"iterate:{split}:{seed}"), least, most, every):
        repeats = repeats + 1 if problem in found else 0
        found.setdefault(problem)
        if len(found) == n:
            break
        if repeats > 1_000:
            raise UsageError(f"iterated(n={n}): the {split} split has only about {len(found)} such problems")
    return [task(p) for p in found]
