"""Rules on lists of digits: what they look like, which are well typed, and what they do to a list.

A rule is operations one after the other, `fo,s,t2`: keep the odd digits, sort them, take the first two. A rule is text
that a model wrote, so it is never evaluated: it is read into a bounded number of known operations, and applying it
takes at most one pass over a list of bounded length for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Digits = tuple[int, ...]  # a list, each of its members 0 to 9
Type = Literal["list", "digit"]

LONGEST_RULE = 6  # operations
LONGEST_LIST = 12  # digits, in and out of every operation


@dataclass(frozen=True)
class Operation:
    """One step of a rule: what it takes and gives (a digit is a list of one), and the arguments it may have.

    name: the letters before the argument. does: the operation on a list and its argument.
    """

    name: str
    takes: Type
    gives: Type
    arguments: str
    says: str
    does: Callable[[Digits, int], Digits] = lambda x, k: x

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.name + k for k in self.arguments) or (self.name,)


OPERATIONS = (
    Operation("r", "list", "list", "", "reverse", lambda x, k: x[::-1]),
    Operation("s", "list", "list", "", "sort, least first", lambda x, k: tuple(sorted(x))),
    Operation("z", "list", "list", "", "sort, greatest first", lambda x, k: tuple(sorted(x, reverse=True))),
    Operation("l", "list", "list", "", "move the first digit to the end", lambda x, k: x[1:] + x[:1]),
    Operation("x", "list", "list", "", "swap the ends", lambda x, k: (x[-1], *x[1:-1], x[0]) if len(x) > 1 else x),
    Operation("m+", "list", "list", "123", "add to each, modulo ten", lambda x, k: tuple((d + k) % 10 for d in x)),
    Operation("fe", "list", "list", "", "keep the even ones", lambda x, k: tuple(d for d in x if d % 2 == 0)),
    Operation("fo", "list", "list", "", "keep the odd ones", lambda x, k: tuple(d for d in x if d % 2)),
    Operation("t", "list", "list", "123", "take the first", lambda x, k: x[:k]),
    Operation("d", "list", "list", "12", "drop the first", lambda x, k: x[k:]),
    Operation("p", "list", "list", "0123456789", "put before", lambda x, k: (k, *x)),
    Operation("a", "list", "list", "0123456789", "put behind", lambda x, k: (*x, k)),
    Operation("g", "list", "digit", "", "the greatest", lambda x, k: (max(x),)),
    Operation("n", "list", "digit", "", "the least", lambda x, k: (min(x),)),
    Operation("h", "list", "digit", "", "the first", lambda x, k: x[:1]),
    Operation("e", "list", "digit", "", "the last", lambda x, k: x[-1:]),
    Operation("+", "digit", "digit", "123", "add, modulo ten", lambda x, k: ((x[0] + k) % 10,)),
    Operation("w", "digit", "list", "23", "write it so many times", lambda x, k: x * k),
    Operation("#", "list", "digit", "", "how many, modulo ten", lambda x, k: (len(x) % 10,)),
)
KNOWN = {text: operation for operation in OPERATIONS for text in operation.texts}


@dataclass(frozen=True)
class Rule:
    """A well-typed rule; `parse` reads one."""

    operations: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.operations)

    def apply(self, x: Digits) -> Digits | None:
        """What the rule makes of a list; None where an operation has nothing to work on, or a list becomes too long."""
        for text in self.operations:
            operation = KNOWN[text]
            if operation.gives == "digit" and operation.takes == "list" and not x:
                return None
            x = operation.does(x, int(text[-1]) if operation.arguments else 0)
            if len(x) > LONGEST_LIST:
                return None
        return x


def parse(text: str) -> Rule | None:
    """The rule a text says, None where it says none: an unknown operation, a wrong type, or too many of them."""
    operations = tuple(text.split(",", LONGEST_RULE))
    if len(operations) > LONGEST_RULE or any(o not in KNOWN for o in operations):
        return None
    kind: Type = "list"
    for o in operations:
        if KNOWN[o].takes != kind:
            return None
        kind = KNOWN[o].gives
    return Rule(operations)


def written(x: Digits | None) -> str:
    """A list as text: its digits, `-` for the empty list, `/` for no list at all."""
    return "/" if x is None else "".join(map(str, x)) or "-"


def read(text: str) -> Digits | None:
    """The list that `written` wrote; None for anything else and for lists that are too long."""
    if text == "-":
        return ()
    return tuple(map(int, text)) if re.fullmatch(f"[0-9]{{1,{LONGEST_LIST}}}", text) else None
