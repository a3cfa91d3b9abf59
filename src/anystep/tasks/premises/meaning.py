"""What a statement says, read from either style and written in either: `b=a+4`, or `Bob has 4 more apples than Ann.`

A story is about who has how many of one thing. Premises give a count (`a=12`), relate one to another (`b=a+4`, `b=a-4`,
`b=a*3`, `d=b+c`) or ask (`e?`); steps work one out (`b=12+4=16`), and the last one answers (`39`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Joe", "Kim", "Lee")
PEOPLE = {name[0].lower(): name for name in _NAMES}
THINGS = ("apples", "books", "cards", "coins", "hats", "nuts", "pens", "shells", "stamps", "toys")
OPERATORS = "+-*"
_LETTER = {name.lower(): letter for letter, name in PEOPLE.items()}

Term = int | str  # a number, or whose count it is
Style = Literal["compact", "natural"]


@dataclass(frozen=True)
class Meaning:
    """kind says which fields count. given: subject, value. relation: subject, left, operator, right. asked: subject.
    worked: subject, left, operator, right (numbers), value. answer: value."""

    kind: Literal["given", "relation", "asked", "worked", "answer"]
    subject: str = ""
    left: Term = 0
    operator: str = ""
    right: Term = 0
    value: int = 0


def apply(left: int, operator: str, right: int) -> int:
    return left + right if operator == "+" else left - right if operator == "-" else left * right


def write(meaning: Meaning, style: Style = "compact", things: str = "apples") -> str:
    """The statement in a style, without its label; only sentences end in a full stop."""
    m = meaning
    if style == "compact":
        return {
            "given": f"{m.subject}={m.value}",
            "relation": f"{m.subject}={m.left}{m.operator}{m.right}",
            "asked": f"{m.subject}?",
            "worked": f"{m.subject}={m.left}{m.operator}{m.right}={m.value}",
            "answer": f"{m.value}",
        }[m.kind]
    who, left, right = PEOPLE.get(m.subject, ""), PEOPLE.get(str(m.left), ""), PEOPLE.get(str(m.right), "")
    if m.kind == "given":
        return f"{who} has {m.value} {things}."
    if m.kind == "asked":
        return f"How many {things} does {who} have?"
    if m.kind == "worked":
        return f"{who} has {m.left} {m.operator} {m.right} = {m.value} {things}."
    if m.kind == "answer":
        return f"The answer is {m.value}."
    if right:
        return f"{who} has as many {things} as {left} and {right} together."
    if m.operator == "*":
        return f"{who} has {m.right} times as many {things} as {left}."
    return f"{who} has {m.right} {'more' if m.operator == '+' else 'fewer'} {things} than {left}."


_WHO = rf"({'|'.join(_LETTER)})"
_HAS, _OF = r"(?:has|have|had|gets)", r"(?: \w+)?"
_FORMS: tuple[tuple[str, Callable[..., Meaning]], ...] = (
    (r"([a-l])=(\d{1,6})", lambda who, v: Meaning("given", who, value=int(v))),
    (r"([a-l])=([a-l])([-+*])(\d{1,6}|[a-l])", lambda who, a, o, b: Meaning("relation", who, a, o, _term(b))),
    (r"([a-l])\?", lambda who: Meaning("asked", who)),
    (r"([a-l])=(\d{1,6})([-+*])(\d{1,6})=(-?\d{1,6})", lambda who, *rest: _worked(who, *rest)),
    (r"(-?\d{1,6})", lambda v: Meaning("answer", value=int(v))),
    (rf"{_WHO} {_HAS} (\d+) ?([-+*x×]) ?(\d+) ?= ?(-?\d+){_OF}", lambda who, *rest: _worked(_LETTER[who], *rest)),
    (rf"{_WHO} has (\d+) (more|fewer|less){_OF} than {_WHO}", lambda who, n, how, of: _told(who, of, how, n)),
    (rf"{_WHO} has (\d+) times as many{_OF} as {_WHO}", lambda who, n, of: _told(who, of, "times", n)),
    (
        rf"{_WHO} has as many{_OF} as {_WHO} and {_WHO} together",
        lambda who, a, b: Meaning("relation", _LETTER[who], _LETTER[a], "+", _LETTER[b]),
    ),
    (rf"how many \w+ does {_WHO} have", lambda who: Meaning("asked", _LETTER[who])),
    (rf"{_WHO} {_HAS} (\d+){_OF}", lambda who, v: Meaning("given", _LETTER[who], value=int(v))),
    (rf"the (?:final )?answer is (-?\d+){_OF}", lambda v: Meaning("answer", value=int(v))),
)
_READERS = [(re.compile(pattern), make) for pattern, make in _FORMS]
_OPENING = re.compile(r"(?:so|then|therefore|thus|hence|now|and|next|finally)\b,? +")


def read(text: str) -> Meaning | None:
    """What a statement says, in either style; None for anything else. `So` and the like before it mean nothing."""
    text = text[:200].strip().lower()
    text = text if re.fullmatch(r"[a-l]\?", text) else text.rstrip(".!? ")
    opening = _OPENING.match(text)
    text = text[opening.end() :] if opening else text
    for pattern, make in _READERS:
        match = pattern.fullmatch(text)
        if match:
            return make(*match.groups())
    return None


def _term(text: str) -> Term:
    return int(text) if text.isdigit() else text


def _worked(who: str, left: str, operator: str, right: str, value: str) -> Meaning:
    return Meaning("worked", who, int(left), "*" if operator in "x×" else operator, int(right), int(value))


def _told(who: str, of: str, how: str, n: str) -> Meaning:
    operator = {"more": "+", "times": "*"}.get(how, "-")
    return Meaning("relation", _LETTER[who], _LETTER[of], operator, int(n))
