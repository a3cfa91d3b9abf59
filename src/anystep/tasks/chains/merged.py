"""Lines that hold several steps: `48-2-9=37` for `48-2=46`, `46-9=37`, and `rs279` for `r729`, `s279`.

People write so and ChainLM does not. Operations are taken from left to right, as in the games themselves. The exact
checker reads a merged line as the steps it stands for, worked out rightly up to the result that it states.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from anystep.tasks.chains.alphabet import CHAIN_END, STEP_END
from anystep.tasks.chains.arithmetic import apply
from anystep.tasks.chains.draw import family_of
from anystep.tasks.chains.family import Verdict, split
from anystep.tasks.chains.lists import INSTRUCTIONS

SUM = re.compile(r"(\d{1,2})((?:[-+*]\d{1,2})+)=(\d{1,2})")
TERM = re.compile(r"([-+*])(\d{1,2})")
LIST = re.compile(r"([rsxlih]+)(\d+)")


class Line(NamedTuple):
    """A line of a chain taken apart; `operations` is empty where it cannot be read.

    left: the value it starts from as written, in lists the digits that the line before states. operations: such as
    `-9` or `r`. values: what each of them gives, worked out from `left`; None behind one that leaves the numbers. said:
    the result that is written.
    """

    text: str
    left: str
    operations: tuple[str, ...]
    values: tuple[str | None, ...]
    said: str


def lines(prompt: str, chain: str) -> list[Line]:
    """The finished lines of a chain of arithmetic, lists or countdown, taken apart."""
    before = prompt[1:].partition(">")[0] if prompt[0] == "L" else ""
    found = []
    for text, _ in split(chain):
        match = (LIST if prompt[0] == "L" else SUM).fullmatch(text)
        if match is None:
            found.append(Line(text, "", (), (), ""))
            before = ""
        elif prompt[0] == "L":
            found.append(_list_line(text, before, match[1], match[2]))
            before = match[2]
        else:
            found.append(_sum_line(text, match[1], match[2], match[3]))
    return found


def _list_line(text: str, before: str, names: str, said: str) -> Line:
    values = list[str | None]()
    digits: str | None = before or None
    for name in names:
        digits = None if digits is None else INSTRUCTIONS[name](digits)
        values.append(digits)
    return Line(text, before, tuple(names), tuple(values), said)


def _sum_line(text: str, left: str, terms: str, said: str) -> Line:
    values, value = list[str | None](), None if left != str(int(left)) else int(left)
    found = TERM.findall(terms)
    for operator, right in found:
        value = None if value is None else apply(value, operator, int(right))
        values.append(None if value is None else str(value))
    return Line(text, left, tuple(o + r for o, r in found), tuple(values), said)


def expanded(prompt: str, chain: str) -> tuple[str, list[int]]:
    """The chain with one step a line, and how many of them each of its lines stands for."""
    ends, out, counts = [last for _, last in split(chain)], list[str](), []
    for line, last in zip(lines(prompt, chain), ends, strict=True):
        inner = [v for v in line.values[:-1] if v is not None]
        if len(line.operations) < 2 or len(inner) < len(line.operations) - 1:
            steps = [line.text]
        else:
            starts, results = [line.left, *inner], [*inner, line.said]
            steps = [
                o + r if prompt[0] == "L" else f"{s}{o}={r}"
                for s, o, r in zip(starts, line.operations, results, strict=True)
            ]
        out += [*(s + STEP_END for s in steps[:-1]), steps[-1] + (CHAIN_END if last else STEP_END)]
        counts.append(len(steps))
    return "".join(out), counts


def judge(prompt: str, chain: str) -> tuple[Verdict, ...]:
    """The exact checker's verdict on each line, merged ones included: that on the first wrong step of the line."""
    plain, counts = expanded(prompt, chain)
    verdicts = iter(family_of(prompt).judge(prompt, plain))
    found = list[Verdict]()
    for count in counts:
        some = [next(verdicts) for _ in range(count)]
        found.append(next((v for v in some if v is not Verdict.RIGHT), Verdict.RIGHT))
    return tuple(found)


def merge(prompt: str, chain: str, at: int) -> str | None:
    """The chain with lines `at` and `at + 1` in one, None where the second does not go on from the first."""
    texts = [text for text, _ in split(chain)]
    if not 0 <= at < len(texts) - 1 or prompt[0] == "P":
        return None
    one, two = lines(prompt, chain)[at : at + 2]
    if not one.operations or not two.operations or (prompt[0] != "L" and two.left != one.said):
        return None
    if None in one.values or one.values[-1] != one.said:
        return None  # a merged line would hide the error
    left = "" if prompt[0] == "L" else one.left
    joined = left + "".join(one.operations + two.operations) + ("" if prompt[0] == "L" else "=") + two.said
    return STEP_END.join([*texts[:at], joined, *texts[at + 2 :]]) + CHAIN_END
