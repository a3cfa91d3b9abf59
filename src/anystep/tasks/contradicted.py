"""Chains whose steps each hold on their own and yet contradict one another, and the right ones they were made from.

A later step uses another value than an earlier one derived: what a check of single steps cannot see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from anystep.errors import UsageError
from anystep.tasks.chains.draw import chains
from anystep.tasks.chains.planted import plant
from anystep.tasks.equations import check_equations
from anystep.tasks.word_problems import word_problems

FORMS = ("chain", "story", "named")
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
WORDS = {"+": "{1} more {2} than {0}", "-": "{1} fewer {2} than {0}", "*": "{1} times as many {2} as {0}"}
NAMES = ("apples", "pears", "plums", "nuts", "figs", "limes", "dates", "kiwis")


@dataclass(frozen=True)
class Told:
    """A question, a chain that answers it, whether it contradicts itself, and which form it has."""

    question: str
    chain: str
    contradicts: bool
    form: str


def contradicted(n: int, seed: int = 0, split: str = "test", forms: tuple[str, ...] = FORMS) -> list[Told]:
    """For `n` problems of every form its right chain, and the same with one value used otherwise than it was derived.

    forms: "chain", countdown and arithmetic of `tasks.chains`; "story", word problems; "named", four to seven
    quantities that are told of each other. In every chain every equation holds. UsageError for other forms.
    """
    if n < 1 or not forms or set(forms) - set(FORMS):
        raise UsageError(f"contradicted(n={n}, forms={forms!r}): call contradicted(50, forms={FORMS!r}).")
    make = {"chain": _chains, "story": _stories, "named": _named}
    found = [told for form in forms for told in make[form](n, seed, split)]
    assert all(e.true for told in found for e in check_equations(told.chain)), "each step holds on its own"
    return found


def _chains(n: int, seed: int, split: str) -> Iterator[Told]:
    rng = Random(f"contradicted chains {seed}")
    count = 0
    for task in chains(4 * n, split, seed, families="CA"):
        wrong = plant(str(task.prompt), task.reference, "wrong copy", rng)
        if wrong is not None and count < n:
            count += 1
            yield Told(str(task.prompt), task.reference, False, "chain")
            yield Told(str(task.prompt), wrong, True, "chain")


def _near(rng: Random, value: int) -> int:
    """Another value: off by a little or by ten, or with two digits swapped."""
    swapped = int(str(value)[::-1])
    return rng.choice(
        [v for v in (value - 2, value - 1, value + 1, value + 2, value + 10, swapped) if v > 0 and v != value]
    )


def _stories(n: int, seed: int, split: str) -> Iterator[Told]:
    rng = Random(f"contradicted stories {seed}")
    for task in word_problems(n, seed=seed, split=split):
        steps = [equation.split() for equation in task.meta["equations"]]
        question = str(task.meta["question"])
        yield Told(question, _story(steps), False, "story")
        (*before, last), derived = steps, steps[-2][4]
        a, sign, b, _, _ = last
        other = str(_near(rng, int(derived)))
        a, b = (other, b) if a == derived else (a, other)
        value = int(a) / int(b) if sign == "/" else OPERATIONS[sign](int(a), int(b))
        yield Told(question, _story([*before, [a, sign, b, "=", f"{value:g}"]]), True, "story")


def _story(steps: list[list[str]]) -> str:
    return "\n".join((*(" ".join(step) for step in steps), f"The answer is {steps[-1][4]}."))


def _named(n: int, seed: int, split: str) -> Iterator[Told]:
    rng = Random(f"contradicted names {split} {seed}")
    for _ in range(n):
        names = rng.sample(NAMES, rng.randint(4, 7))
        values, lines = {names[0]: rng.randint(3, 40)}, list[tuple[str, str, str, int]]()
        told = [f"There are {values[names[0]]} {names[0]}."]
        for name in names[1:]:
            other = rng.choice(list(values))
            sign = rng.choice([s for s in "+-*" if s != "-" or values[other] > 12])
            amount = rng.randint(2, 4) if sign == "*" else rng.randint(2, 12)
            values[name] = OPERATIONS[sign](values[other], amount)
            told.append(f"There are {WORDS[sign].format(other, amount, name)}.")
            lines.append((name, other, sign, amount))
        question = " ".join(told) + f" How many {names[-1]} are there?"
        yield Told(question, _worked(values, lines, None, rng), False, "named")
        yield Told(question, _worked(values, lines, rng.randrange(len(lines)), rng), True, "named")


def _worked(values: dict[str, int], lines: list[tuple[str, str, str, int]], at: int | None, rng: Random) -> str:
    """The chain; from line `at` on, one name is read as another value, which is near its own or another name's."""
    said, found = dict(values), list[str]()
    for i, (name, other, sign, amount) in enumerate(lines):
        used = said[other]
        if i == at:
            others = [v for v in values.values() if v != used]
            used = rng.choice(others) if others and rng.random() < 0.5 else _near(rng, used)
        said[name] = OPERATIONS[sign](used, amount)
        found.append(f"{name} = {other} {sign} {amount} = {used} {sign} {amount} = {said[name]}")
    return "\n".join((*found, f"The answer is {said[lines[-1][0]]}."))
