"""Does a chain contradict itself? What its steps use, held against what they derived, over the whole chain.

Each step may be right on its own, `17*3=51`, and yet not follow: 17 was 16 where it was derived, or has been used up.
Nothing here knows the answer, or asks whether a step is a good one.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from anystep.tasks.chains.arithmetic import EQUATION
from anystep.tasks.chains.family import split
from anystep.tasks.equations import Equation, check_equations, known_numbers
from anystep.tasks.numbers import parse_number

FOLD = re.compile(r"C(\d(?: \d)+)>(\d{1,2})\?")
RUN = re.compile(r"A(\d{1,2})((?:[-+*]\d)+)\?")
NAMED = re.compile(r"\s*([^\W\d_]\w*)\s*(?:=|:|\bis\b)\s*(.*)")
NAME_OR_NUMBER = re.compile(r"[^\W\d_]\w*|\d+(?:\.\d+)?")
OPERATOR = re.compile(r"[-+*/x×·÷]|\bplus\b|\bminus\b|\btimes\b")


@dataclass(frozen=True)
class Contradiction:
    """A step, from 0, that does not agree with an earlier one, and why."""

    step: int
    why: str


def contradictions(question: str, chain: str) -> tuple[Contradiction, ...]:
    """Every step of a chain that does not agree with what came before it, in order; total, no text raises.

    In general a step is a line, and contradicts the others where it uses, under a name, another value than the one that
    was told or derived for it or used before, derives a second value for a name, or computes with a number that is
    neither in the question nor a result of an earlier line. A last line without equations that tells a number
    contradicts the chain if it is not the last result. Countdown and arithmetic chains of `tasks.chains` are held to
    their books: every step goes on from the value that the last one led to, and uses a number that is left, or the
    operation whose turn it is; and a countdown that ends has used every number and reached what was asked for. Whether
    the equations hold is another check's business: a false result that is carried on contradicts nothing.
    """
    if match := FOLD.fullmatch(question):
        return tuple(_folded(match[1].split(), match[2], chain))
    if match := RUN.fullmatch(question):
        return tuple(_followed(match[1], re.findall(r"[-+*]\d", match[2]), chain))
    return tuple(_told(question, chain))


def steps_of(question: str, chain: str) -> int:
    """How many steps a chain has, as `contradictions` counts them."""
    if FOLD.fullmatch(question) or RUN.fullmatch(question):
        return len(split(chain))
    return sum(bool(line.strip()) for line in chain.split("\n"))


def _folded(numbers: list[str], target: str, chain: str) -> list[Contradiction]:
    """Countdown: each given number once, behind the first step the running value on the left, and at the end the
    target."""
    found, left, value = list[Contradiction](), Counter(numbers), ""
    for i, (text, last) in enumerate(split(chain)):
        step = EQUATION.fullmatch(text)
        if step is None:
            found.append(Contradiction(i, f"{text!r} is no step"))
            continue
        if value and step[1] != value:
            found.append(Contradiction(i, f"goes on from {step[1]} where {value} was reached"))
        uses = [step[3]] if value else [step[1], step[3]]
        for number in uses:
            if left[number] < 1:
                found.append(Contradiction(i, f"uses {number}, which is not left"))
            left[number] -= 1
        value = step[4]
        if last and (value != target or +left):
            found.append(Contradiction(i, f"ends at {value}, with {left.total()} left, where {target} is asked for"))
    return found


def _followed(value: str, operations: list[str], chain: str) -> list[Contradiction]:
    """A line of arithmetic: the running value on the left, and the operations in their order."""
    found, at = list[Contradiction](), value
    for i, (text, last) in enumerate(split(chain)):
        step = EQUATION.fullmatch(text)
        if step is None:
            found.append(Contradiction(i, f"{text!r} is no step"))
            continue
        if step[1] != at:
            found.append(Contradiction(i, f"goes on from {step[1]} where {at} was reached"))
        if i >= len(operations) or step[2] + step[3] != operations[i]:
            found.append(Contradiction(i, f"{step[2]}{step[3]} is not what is due"))
        at = step[4]
        if last and i < len(operations) - 1:
            found.append(Contradiction(i, f"ends where {operations[i + 1]} is due"))
    return found


def _told(question: str, chain: str) -> list[Contradiction]:
    """Any other text, line by line."""
    found: list[Contradiction] = []
    known, named, last = known_numbers(question), _given(question), None
    lines = [line for line in chain.split("\n") if line.strip()]
    for i, line in enumerate(lines):
        equations = check_equations(line)
        found += [Contradiction(i, why) for why in _misused(line, named)]
        aliens = [n for e in equations for n in e.operands if n not in known]
        found += [Contradiction(i, f"computes with {n}, which is neither given nor derived") for n in aliens]
        known = known | {e.result for e in equations}
        found += [Contradiction(i, why) for why in _defined(line, equations, named)]
        if not equations and last is not None and i == len(lines) - 1:
            said = [n for t in re.findall(r"\d[\d,]*(?:\.\d+)?", line) if (n := parse_number(t)) is not None]
            if said and last not in said:
                found.append(Contradiction(i, f"concludes without {last}, the last result"))
        last = equations[-1].result if equations else last
    return found


def _given(question: str) -> dict[str, Fraction]:
    """Names that the question tells a number of, `38 figs`, once and no other."""
    found: dict[str, set[Fraction]] = {}
    for number, name in re.findall(r"(\d+(?:\.\d+)?) ([^\W\d_]\w*)", question):
        found.setdefault(name.lower(), set()).add(Fraction(number))
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _misused(line: str, named: dict[str, Fraction]) -> list[str]:
    """Names that a line puts other values to than were derived: `b = a * 2 = 13 * 2 = 26` where a is 12."""
    found = []
    sides = line.split("=")
    for words, numbers in zip(sides, sides[1:], strict=False):
        terms, values = NAME_OR_NUMBER.findall(words), NAME_OR_NUMBER.findall(numbers)
        if len(terms) != len(values) or OPERATOR.findall(words) != OPERATOR.findall(numbers) or len(terms) < 2:
            continue
        for term, value in zip(terms, values, strict=True):
            number = parse_number(value)
            if number is not None and parse_number(term) is None and named.setdefault(term.lower(), number) != number:
                found.append(f"puts {value} for {term}, which is {named[term.lower()]}")
    return found


def _defined(line: str, equations: list[Equation], named: dict[str, Fraction]) -> list[str]:
    """Notes the value a line derives for a name; says where it had another one."""
    match = NAMED.match(line)
    if match is None:
        return []
    name, value = match[1].lower(), parse_number(match[2].rpartition("=")[2].strip().rstrip("."))
    value = equations[-1].result if equations else value
    if value is None:
        return []
    if named.setdefault(name, value) != value:
        return [f"derives {value} for {match[1]}, which is {named[name]}"]
    return []
