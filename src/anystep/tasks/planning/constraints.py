"""What a plan may have to keep to, and whether it does: the exact checker.

A plan puts items in slots, one a line: `a3`, `b1`, `c6.`; no two share a slot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anystep.tasks.chains import CHAIN_END, STEP_END

ITEMS = "abcde"
SLOTS = "123456"


@dataclass(frozen=True)
class Constraint:
    """`a!3`: a is not in slot 3; `a>2`, `a<4`: behind or before a slot; `a<b`: before b; `a*b`: right beside b."""

    item: str
    kind: str
    other: str

    def __str__(self) -> str:
        return f"{self.item}{self.kind}{self.other}"

    def broken(self, slots: Mapping[str, int]) -> bool:
        """Whether a plan, perhaps unfinished, breaks it: what is not yet placed breaks nothing."""
        mine = slots.get(self.item)
        theirs = int(self.other) if self.other in SLOTS else slots.get(self.other)
        if mine is None or theirs is None:
            return False
        kept = {"!": mine != theirs, ">": mine > theirs, "<": mine < theirs, "*": abs(mine - theirs) == 1}
        return not kept[self.kind]


def parse(text: str) -> Constraint | None:
    """The constraint that a text says, None where it says none."""
    match = re.fullmatch(rf"([{ITEMS}])(?:([!<>])([{SLOTS}])|([<*])([{ITEMS}]))", text)
    if match is None or match[1] == match[5]:
        return None
    return Constraint(match[1], match[2] or match[4], match[3] or match[5])


def listed(constraints: Iterable[Constraint]) -> str:
    return ",".join(map(str, constraints))


def read_plan(text: str) -> tuple[dict[str, int], bool] | None:
    """Where the finished lines of a plan put things, and whether it is finished; None where a line is none, an item
    comes twice or two share a slot."""
    body, end, _ = text.partition(CHAIN_END)
    lines = body.split(STEP_END)
    lines = lines if end else lines[:-1]
    slots: dict[str, int] = {}
    for line in lines:
        if not re.fullmatch(f"[{ITEMS}][{SLOTS}]", line) or line[0] in slots or int(line[1]) in slots.values():
            return None
        slots[line[0]] = int(line[1])
    return slots, bool(end)
