"""Can a number be carried through a line of operations? Three families of arithmetic, worked out in three formats.

`821+376-95?` may be answered at once, `1102.`; in guided lines, `821+376=1197`, `1197-95=1102.`; or decomposed, each
operation worked out digit by digit from the right, `821+376:1+6=7,2+7=9,8+3=11>1197`. Whatever its format, a line ends
with the value that has been reached, so that formats can change from line to line. A letter behind the question mark
asks for a format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from anystep.errors import UsageError
from anystep.tasks.chains import CHAIN_END, PROMPT_END, SPLITS, STEP_END, split_of
from anystep.tasks.task import Task

Format = Literal["short", "guided", "decomposed"]
FORMATS: tuple[Format, ...] = ("short", "guided", "decomposed")
MARKS: dict[Format, str] = {"short": "s", "guided": "g", "decomposed": "d"}
FAMILIES = ("sums", "balances", "products")  # additions; additions and subtractions; products with digits
LEVELS: dict[str, tuple[tuple[int, int], ...]] = {  # by family: operations, and the most digits of what is drawn
    "sums": ((1, 2), (2, 3), (3, 4)),
    "balances": ((1, 2), (2, 3), (3, 4)),
    "products": ((1, 3), (2, 2), (2, 3)),
}
LEVEL_MIX = (0.5, 0.35, 0.15)
GENERATION = {"unit": "step", "stop": STEP_END, "end": CHAIN_END, "max_tokens": 190, "at_cap": "failed", "chat": False}
READ = re.compile(r"(\d+)((?:[-+*]\d+)+)\?")


@dataclass(frozen=True)
class Reckoning:
    """A value and the operations that are left, first to last."""

    value: int
    left: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.value}{''.join(f'{sign}{n}' for sign, n in self.left)}{PROMPT_END}"

    def after(self, operations: int = 1) -> Reckoning:
        """What is left after the first of its operations."""
        value = self.value
        for sign, n in self.left[:operations]:
            value = value + n if sign == "+" else value - n if sign == "-" else value * n
        return Reckoning(value, self.left[operations:])

    def line(self, form: Format) -> tuple[str, Reckoning]:
        """Its next line in a format, without its ending, and what is left then."""
        if form == "short":
            end = self.after(len(self.left))
            return str(end.value), end
        after, (sign, n) = self.after(), self.left[0]
        if form == "guided":
            return f"{self.value}{sign}{n}={after.value}", after
        return f"{self.value}{sign}{n}:{','.join(columns(self.value, sign, n))}>{after.value}", after

    def lines(self, form: Format) -> str:
        """All its lines, the last with a full stop."""
        found, now = list[str](), self
        while now.left:
            text, now = now.line(form)
            found.append(text)
        return STEP_END.join(found) + CHAIN_END


def columns(a: int, sign: str, b: int) -> list[str]:
    """An operation digit by digit from the right, with what is carried or borrowed: `8+3=11`, `13-1-8=4`, `6*7+4=46`.

    b has no more digits than a where it is subtracted, and one where it multiplies.
    """
    top, low = ([int(d) for d in reversed(str(n))] for n in (a, b))
    found, carry = list[str](), 0
    for i in range(len(top) if sign != "+" else max(len(top), len(low))):
        own, other = (digits[i] if i < len(digits) else None for digits in (top, low))
        if sign == "-":
            down = (other or 0) + carry
            up = (own or 0) + (10 if (own or 0) < down else 0)
            taken = [carry, other] if other is not None else [carry]
            found.append("-".join(map(str, [up, *(n for n in taken if n)])) + f"={up - down}")
            carry = int(up > 9)
            continue
        terms = [f"{own}*{b}"] if sign == "*" else [str(n) for n in (own, other) if n is not None]
        value = carry + ((own or 0) * b if sign == "*" else (own or 0) + (other or 0))
        found.append("+".join([*terms, *([str(carry)] if carry else [])]) + f"={value}")
        carry = value // 10
    return found


def read(prompt: str) -> Reckoning:
    """A prompt as what is to be reckoned; UsageError for another text."""
    match = READ.fullmatch(prompt)
    if match is None:
        raise UsageError(f"a reckoning reads '821+376-95?', got {prompt!r:.60}")
    return Reckoning(int(match[1]), tuple((s, int(n)) for s, n in re.findall(r"([-+*])(\d+)", match[2])))


def steps(prompt: str, text: str) -> tuple[bool, ...]:
    """For every finished line, whether the value that it reaches is right, and a full stop stands behind the last one
    only; behind a wrong line all are wrong. A line that is a number alone does all that is left."""
    now, found = read(prompt), list[bool]()
    body, stop, _ = text.partition(CHAIN_END)
    *lines, tail = body.split(STEP_END)
    for line in [*lines, *([tail] if stop else [])]:
        right = bool(now.left) and all(found[-1:])
        if right:
            now = now.after(len(now.left) if line.isdecimal() else 1)
            ends = bool(stop) and len(found) == len(lines)
            right = reached(line) == str(now.value) and ends == (not now.left)
        found.append(right)
    return tuple(found)


def nines(prompt: str, text: str) -> bool:
    """Whether the last finished line passes casting out nines: the sum of its result's digits, and that of what is
    worked out from the digits of the value that the line before it reached, leave the same rest by nine; and a full
    stop stands behind it if nothing is left to do. One wrong result in nine passes too."""
    lines = [line for line in text.partition(CHAIN_END)[0].split(STEP_END) if line]
    now = read(prompt[: prompt.index(PROMPT_END) + 1])
    before = now.value if len(lines) < 2 else int(reached(lines[-2]) or 0)
    value = reached(lines[-1]) if lines else None
    left = [(sign, n % 9) for sign, n in now.left[len(lines) - 1 :]]
    if value is None or not left:
        return False
    taken = left if lines[-1].isdecimal() else left[:1]
    rest = Reckoning(before % 9, tuple(taken)).after(len(taken)).value
    return int(value) % 9 == rest % 9 and (CHAIN_END in text) == (len(taken) == len(left))


def reached(line: str) -> str | None:
    """The value that a line, or a whole chain, ends with."""
    match = re.search(r"\d+$", line.partition(CHAIN_END)[0])
    return match[0] if match else None


def draw(rng: Random, family: str, operations: int, digits: int) -> Reckoning:
    """A reckoning whose values stay below 100,000 and above 0; numbers have the most digits, or one less."""

    def number(most: int) -> int:
        size = max(1, most - rng.randrange(2))
        return rng.randrange(2 if size == 1 else 10 ** (size - 1), 10**size)

    while True:
        found = Reckoning(number(digits) if digits > 1 else number(2), ())
        for _ in range(operations):
            sign = {"sums": "+", "balances": rng.choice("+-"), "products": "*"}[family]
            found = Reckoning(found.value, (*found.left, (sign, number(1 if sign == "*" else digits))))
        values = [found.after(i).value for i in range(operations + 1)]
        if all(0 < value < 100_000 for value in values):
            return found


def reckonings(
    split: str, rng: Random, families: Sequence[str] = FAMILIES, levels: Sequence[float] = (1, 1, 1)
) -> Iterator[tuple[str, int, Reckoning]]:
    """Endless problems of one split with family and level; families are drawn evenly, levels by weight."""
    while True:
        family, level = rng.choice(list(families)), rng.choices(range(3), levels)[0]
        while split_of(str(found := draw(rng, family, *LEVELS[family][level]))) != split:
            pass
        yield family, level + 1, found


def reckoning(n: int, split: str = "test", seed: int = 0, families: Sequence[str] = FAMILIES) -> list[Task]:
    """`n` distinct problems of a split as tasks, easy ones the most often.

    UsageError for an unknown split or family, or no problems."""
    if split not in SPLITS or n < 1 or not families or set(families) - set(FAMILIES):
        raise UsageError(
            f"reckoning(n={n!r}, split={split!r}, families={families!r}): n is 1 or more, split one of "
            f"{', '.join(SPLITS)}, families some of {FAMILIES}."
        )
    found: dict[str, Task] = {}
    for family, level, problem in reckonings(split, Random(f"reckoning:{split}:{seed}"), families, LEVEL_MIX):
        found.setdefault(str(problem), task(family, level, problem))
        if len(found) == n:
            break
    return list(found.values())


def task(family: str, level: int, problem: Reckoning) -> Task:
    """The problem as a task, whose answer is its last value."""
    prompt, answer = str(problem), str(problem.after(len(problem.left)).value)

    def extract(text: str) -> str | None:
        return reached(text) if CHAIN_END in text else None

    return Task(
        id=prompt,
        family=family,
        prompt=prompt,
        reference=answer,
        extract=extract,
        score=lambda text: float(extract(text) == answer),
        steps=lambda text: steps(prompt, text),
        level=level,
        generation=dict(GENERATION),
    )
