"""Problems that are worked line by line, with a checker that judges every line by itself.

Four families, told to any model in plain text behind worked examples: `counts` (count on from a number by a number),
`doubles`, `stories` (the two equations of a word problem) and `larger` (of each of three pairs, which is it). A line is
right when it does what is due there, starting from what the line before says, and its result is true: a chain that goes
on rightly from a false result has one wrong line, and a chain is right when every line is.

They are for models that err: SmolLM2-135M gets about half of the lines wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from anystep.errors import UsageError
from anystep.tasks._draw import check_count, check_split, rng, split_of
from anystep.tasks.task import Task
from anystep.tasks.word_problems import Story
from anystep.tasks.word_problems import stories as told

LINES = ("counts", "stories", "doubles", "larger")
END = "\n\n"
GENERATION = {"unit": "step", "stop": "\n", "end": (END,), "max_tokens": 56, "temperature": 0.5, "chat": False}

_EQUATION = re.compile(r"(\d{1,9}) ([+\-*]) (\d{1,9}) = (\d{1,9})")
_CHOICE = re.compile(r"(\d{1,9}) (or) (\d{1,9}) = (\d{1,9})")
_SAYS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "or": max,
}


@dataclass(frozen=True)
class Due:
    """What a line must do: `left sign right`, None standing for the result of the line before; either side may come
    first, except in a subtraction."""

    left: int | None
    sign: str
    right: int | None

    def asks(self, before: int | None) -> tuple[tuple[int | None, str, int | None], ...]:
        """The left sides that do it."""
        left = before if self.left is None else self.left
        right = before if self.right is None else self.right
        return ((left, self.sign, right),) if self.sign == "-" else ((left, self.sign, right), (right, self.sign, left))


@dataclass(frozen=True)
class Worked:
    """A problem: how it is told, what each line must do, and its lines. `kind`: what is split on, beside the lines."""

    question: str
    due: tuple[Due, ...]
    lines: tuple[str, ...]
    kind: str = ""

    def judge(self, text: str) -> tuple[bool, ...]:
        """One label a line of the text, up to its first empty one: does it do what is due, with a true result?"""
        labels: list[bool] = []
        before: int | None = None
        for i, line in enumerate(lines_of(text)):
            found = _EQUATION.fullmatch(line.strip()) or _CHOICE.fullmatch(line.strip())
            labels.append(False)
            before = None
            if found is not None:
                left, sign, right, before = int(found[1]), found[2], int(found[3]), int(found[4])
                asked = self.due[i].asks(_result(lines_of(text)[i - 1]) if i else None) if i < len(self.due) else ()
                labels[-1] = (left, sign, right) in asked and _SAYS[sign](left, right) == before
        return tuple(labels)


def lines_of(text: str) -> list[str]:
    """The lines of a chain, up to its first empty one; a last one that has no end yet counts."""
    body = text.partition(END)[0]
    return body.removesuffix("\n").split("\n") if body.strip() else []


def _result(line: str) -> int | None:
    """The number behind a line's last equals sign, None without one."""
    said = line.rpartition("=")[2].strip()
    return int(said) if "=" in line and re.fullmatch(r"\d{1,9}", said) else None


def _counts(r: Random) -> Worked:
    by, start = r.randint(2, 12), r.randint(5, 99)
    lines = tuple(f"{start + i * by} + {by} = {start + (i + 1) * by}" for i in range(3))
    return Worked(
        f"Count on from {start} by {by}, three times.", (Due(start, "+", by), *(Due(None, "+", by),) * 2), lines
    )


def _doubles(r: Random) -> Worked:
    start = r.randint(3, 60)
    lines = tuple(f"{start << i} + {start << i} = {start << (i + 1)}" for i in range(3))
    return Worked(f"Double {start}, three times.", (Due(start, "+", start), *(Due(None, "+", None),) * 2), lines)


def _larger(r: Random) -> Worked:
    pairs = [tuple(r.sample(range(10, 100), 2)) for _ in range(3)]
    lines = tuple(f"{a} or {b} = {max(a, b)}" for a, b in pairs)
    asked = ", ".join(f"{a} or {b}" for a, b in pairs)
    return Worked(f"Which is larger: {asked}?", tuple(Due(a, "or", b) for a, b in pairs), lines)


def _of(story: Story) -> Worked:
    (a, sign, b, c), second = story.steps
    left, right = (None if second[0] == c else second[0]), second[2]
    due = Due(left, second[1], None if left is not None and right == c else right)
    return Worked(story.text, (Due(a, sign, b), due), story.equations, story.scheme)


_DRAW: dict[str, Callable[[Random], Worked]] = {"counts": _counts, "doubles": _doubles, "larger": _larger}
_SHOWN = {family: tuple(draw(rng("lines", family, "shown", i)) for i in range(5)) for family, draw in _DRAW.items()}
# Names and things that no story uses.
_TOLD = {
    "gains": (
        ("Kim has 3 cups. Kim buys 4 more cups. Then Dan gives Kim 2 more cups.", "3 + 4 = 7", "7 + 2 = 9"),
        ("Dan has 5 nuts. Dan buys 2 more nuts. Then Kim gives Dan 6 more nuts.", "5 + 2 = 7", "7 + 6 = 13"),
        ("Kim has 2 hats. Kim buys 6 more hats. Then Dan gives Kim 4 more hats.", "2 + 6 = 8", "8 + 4 = 12"),
        ("Dan has 8 pens. Dan buys 3 more pens. Then Kim gives Dan 5 more pens.", "8 + 3 = 11", "11 + 5 = 16"),
    ),
    "bags": (
        ("Kim has 3 bags with 4 cups in each. Kim gives 2 cups to Dan.", "3 * 4 = 12", "12 - 2 = 10"),
        ("Dan has 5 bags with 2 nuts in each. Dan gives 6 nuts to Kim.", "5 * 2 = 10", "10 - 6 = 4"),
        ("Kim has 2 bags with 6 hats in each. Kim gives 4 hats to Dan.", "2 * 6 = 12", "12 - 4 = 8"),
        ("Dan has 4 bags with 5 pens in each. Dan gives 3 pens to Kim.", "4 * 5 = 20", "20 - 3 = 17"),
    ),
}


def prompt(problem: Worked, family: str) -> str:
    """The question behind worked examples of its kind, none of which is drawn as a problem."""
    shown = _TOLD[problem.kind] if family == "stories" else [(w.question, *w.lines) for w in _SHOWN[family]]
    worked = "".join("\n".join((f"Question: {asked}", "Answer:", *lines)) + END for asked, *lines in shown)
    return f"{worked}Question: {problem.question}\nAnswer:\n"


def drawn(family: str, seed: int, split: str) -> Iterator[Worked]:
    """Distinct problems of one split; the split is of what must be done, not of names. Ends where all were drawn."""
    if family == "stories":
        for story in told(seed, split, 1):
            problem = _of(story)
            yield Worked(problem.question.partition(" How many")[0], problem.due, problem.lines, problem.kind)
    seen = {shown.question for shown in _SHOWN[family]}
    for index in range(200_000):
        problem = _DRAW[family](rng("lines", family, seed, split, index))
        if problem.question not in seen and split_of("lines", family, problem.lines) == split:
            seen.add(problem.question)
            yield problem


def lines(n: int, family: str = "counts", *, seed: int = 0, split: str = "test") -> list[Task]:
    """`n` distinct problems of a family: 1,045 of counts and 58 of doubles are there over all splits.

    `Task.steps` labels the lines of a text, False from the first wrong one on; `Task.meta["judge"]` labels each by
    itself. The answer is the results of all lines; the score is 1 where it is the reference. Raises UsageError for an
    unknown family or split, and for more problems than there are.
    """
    call = f'lines({n!r}, "counts", split="test")'
    check_count(n, call)
    check_split(split, call)
    if family not in LINES:
        raise UsageError(f"family={family!r} does not exist: write {call}, with one of {', '.join(LINES)}")
    source = drawn(family, seed, split)
    found = [_task(problem, family, seed, split, i) for i, problem in zip(range(n), source, strict=False)]
    if len(found) < n:
        raise UsageError(f"{call}: {family} has {len(found)} problems of this split; ask for no more")
    return found


def _task(problem: Worked, family: str, seed: int, split: str, index: int) -> Task:
    reference = extract("\n".join(problem.lines)) or ""

    def steps(text: str) -> tuple[bool, ...]:
        labels = problem.judge(text)
        return tuple(all(labels[: i + 1]) for i in range(len(labels)))

    return Task(
        id=f"lines/{family}/{split}/{seed}/{index}",
        family=f"lines/{family}",
        prompt=prompt(problem, family),
        reference=reference,
        extract=extract,
        score=lambda text: float(extract(text) == reference),
        steps=steps,
        generation=dict(GENERATION),
        meta={"question": problem.question, "lines": problem.lines, "judge": problem.judge},
    )


def extract(text: str) -> str | None:
    """The results of all lines, None where a line has none."""
    results = [_result(line) for line in lines_of(text)]
    return None if not results or None in results else " ".join(map(str, results))
