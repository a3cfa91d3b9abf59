"""Is the arithmetic right? Checks every equation a chain of thought writes, without knowing the answer.

What is not plainly arithmetic (a variable, a power, a remainder) is skipped, never guessed; a false equation is false
whatever the answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from anystep.tasks._arithmetic import MAX_SIDE, Token, is_torn, read_left, read_side, tokenize
from anystep.tasks.equivalence import extract_number
from anystep.tasks.numbers import MAX_TEXT, ascii_digits, parse_number

MAX_EQUATIONS = 256

# Numbers that a question may tell in words, each word for the value that a chain writes for it.
_TOLD = {
    **dict(one=1, two=2, three=3, four=4, five=5, six=6, seven=7, eight=8, nine=9, ten=10, eleven=11, twelve=12),
    **dict(twice=2, double=2, half=2, pair=2, both=2, triple=3, third=3, quarter=4, week=7, dozen=12, year=12),
    **dict(hour=60, minute=60, hundred=100, percent=100),
}


@dataclass(frozen=True)
class Equation:
    """One equation as written: both sides, whether it holds, and where it stands in the text.

    `operands` are the numbers of the side that computes, `result` the value of the other (of the right one if both do).
    """

    left: str
    right: str
    true: bool
    span: tuple[int, int]
    operands: tuple[Fraction, ...]
    result: Fraction


@dataclass(frozen=True)
class Reading:
    """What a chain's equations show: see `read_chain`."""

    equations: tuple[Equation, ...]
    grounded: tuple[bool, ...]
    coverage: float
    agrees: bool

    @property
    def fraction_true(self) -> float:
        """The share of equations that hold; NaN where there is none."""
        return sum(e.true for e in self.equations) / len(self.equations) if self.equations else float("nan")

    @property
    def score(self) -> float:
        """See `equation_score`."""
        if not self.equations:
            return 0.0
        credit = sum(e.true * (1.0 if g else 0.5) for e, g in zip(self.equations, self.grounded, strict=True))
        return credit / len(self.equations) * (1.0 if self.agrees else 0.5) * (0.5 + 0.5 * self.coverage)


def check_equations(text: str) -> list[Equation]:
    """Every equation of the text that computes something, in order.

    Understood: integers, decimals, thousands commas, `$`, `%` (a hundredth), `+ - * x × · / ÷ \\times \\div`, `plus`,
    `minus`, `times`, `% of`, brackets, and units after a number. `3 + 4 = 7 - 2 = 5` is two equations, the first
    false. Exact, except that a right side written with decimals holds when it is right to the decimals shown
    (`10 / 3 = 3.33`). Division by zero is false. `total = 7` and `5 = 5` compute nothing and are left out. Total: the
    first 20,000 characters and 256 equations are read, no text raises.
    """
    found: list[Equation] = []
    start = 0
    for line in ascii_digits(text[:MAX_TEXT]).split("\n"):
        tokens = tokenize(line, start)
        start += len(line) + 1
        for at, token in enumerate(tokens):
            if token.kind == "equals" and len(found) < MAX_EQUATIONS:
                equation = _equation(tokens, at, text)
                if equation is not None:
                    found.append(equation)
    return found


def read_chain(question: str, chain: str) -> Reading:
    """The chain's equations, and for each whether it is grounded; how much of the question is used; the answer.

    An equation is *grounded* when each of its operands stands in the question (in digits or as a word such as
    `three`, `twice`, `dozen`) or is the result of an earlier equation. `coverage` is the share of the question's
    numbers that some equation uses (1 for a question without numbers). `agrees` says that the chain's final answer,
    read by `equivalence.extract_number`, is the last equation's result.
    """
    equations = tuple(check_equations(chain))
    numbers = _numbers(question)
    known = known_numbers(question)
    grounded = []
    for equation in equations:
        grounded.append(all(operand in known for operand in equation.operands))
        known = known | {equation.result}
    used = [operand for equation in equations for operand in equation.operands]
    covered = 0
    for values in numbers:  # a number told twice wants two uses: `6 * 3 = 18` leaves one of 6, 3 and 6 unused
        hit = next((operand for operand in used if operand in values), None)
        if hit is not None:
            used.remove(hit)
            covered += 1
    coverage = covered / len(numbers) if numbers else 1.0
    final = extract_number(chain)
    agrees = bool(equations) and final is not None and parse_number(final) == equations[-1].result
    return Reading(equations, tuple(grounded), coverage, agrees)


def known_numbers(question: str) -> frozenset[Fraction]:
    """Every number that a question tells, in digits or as a word such as `three`, `twice`, `dozen`."""
    words = {Fraction(_TOLD[word]) for word in re.findall("[a-z]+", question[:MAX_TEXT].lower()) if word in _TOLD}
    return frozenset(words.union(*_numbers(question)))


def _numbers(question: str) -> list[Collection[Fraction]]:
    """The readings of each number in digits."""
    return [token.readings() for token in tokenize(ascii_digits(question[:MAX_TEXT]), 0) if token.kind == "number"]


def equation_score(question: str, chain: str) -> float:
    """How sound a chain's arithmetic is, in [0, 1], from the question and the chain alone: it needs no answer key.

    The mean over equations of (1 where true and grounded, 1/2 where true only, 0 where false), times 1 or 1/2 as the
    final answer is the last equation's result or not, times 1/2 plus half the share of the question's numbers that are
    used. A chain without equations scores 0. It cannot see a wrong plan carried out right: `12 - 5 = 7` scores as well
    as `12 + 5 = 17` where the story wants a sum. Deterministic and total.
    """
    return read_chain(question, chain).score


def _equation(tokens: list[Token], at: int, text: str) -> Equation | None:
    left = read_left(tokens, at)
    right = read_side(tokens, at + 1, min(len(tokens), at + 1 + MAX_SIDE))
    if left is None or right is None or not (left.computes or right.computes):
        return None
    if is_torn(tokens, left.begin - 1) or is_torn(tokens, right.stop):
        return None
    working, claimed = (left, right) if left.computes else (right, left)
    if claimed.value is None:
        return None
    true = working.value is not None and abs(working.value - claimed.value) <= claimed.slack
    span = (tokens[left.begin].start, tokens[right.stop - 1].end)
    middle = tokens[at]
    return Equation(
        text[span[0] : middle.start].strip(),
        text[middle.end : span[1]].strip(),
        true,
        span,
        working.operands,
        claimed.value,
    )
