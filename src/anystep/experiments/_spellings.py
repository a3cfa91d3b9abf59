"""Steps whose citations are spelled as models spell them, each with what a reader must find."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_LABELS = ("#{}. ", "#{} ", "#{}: ", "#{}) ", "# {}. ", "#{}. Step 2: ", "#{}.\t")
_TEXTS = (
    "Bob has 12 + 4 = 16 apples.",
    "So Bob has (12) + (4) = 16 apples",
    "the answer is 16.",
    "2 * (3 + 4) = 14; that is all",
    "Bob's 5-7 cups are 3 of 10",
)
_LEADS = ("by ", "By ", "by: ", "from ", "using ", "by premises ", "given ", "based on ")
_BRACKETS = ("()", "[]")
_BETWEEN = (" ", ", ", ",", " and ", ", and ", "; ", " & ")
_TO = ("-", " - ", "\N{EN DASH}", " to ", "..", " through ")


@dataclass(frozen=True)
class Spelled:
    """A step's text, its number, and what it cites in the order written."""

    text: str
    number: int
    cites: tuple[int, ...]


def spelled(r: Random) -> Spelled:
    """A step with a few single citations and ranges, spelled at random."""
    number, cites, items = r.randint(2, 40), list[int](), list[str]()
    mark = r.choice(("#", "#", "#", "# ", ""))
    for _ in range(r.randint(1, 4)):
        low = r.randint(1, 30)
        high = low + r.choice((0, 0, 1, 3))
        cites += range(low, high + 1)
        second = r.choice(("", mark))
        items.append(f"{mark}{low}{r.choice(_TO)}{second}{high}" if high > low else f"{mark}{low}")
    between = r.choice(_BETWEEN)
    listed = between.join(items)
    label, text = r.choice(_LABELS).format(number), r.choice(_TEXTS)
    if mark and r.random() < 0.2:
        placed = f"{r.choice(('By', 'From', 'Using'))} {listed}, {text}"
    else:
        lead = r.choice(_LEADS) if not mark or r.random() < 0.8 else ""
        bracket = r.choice(_BRACKETS)
        group = f"{bracket[0]}{lead}{listed}{bracket[1]}"
        placed = f"{group} {text}" if r.random() < 0.7 else f"{text} {group}"
    return Spelled(label + placed, number, tuple(dict.fromkeys(cites)))
