"""What a generated programming problem is before it becomes a task: its words, its reference and its inputs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Spec:
    """One problem: `says` in plain English what `name(signature)` returns, `body` does it.

    draw: typical arguments, as an example shows them. edges: arguments where a careless program goes wrong: nothing,
    one element, ties, the bounds. key: what makes it this problem and no other; it decides the split.
    """

    scheme: str
    name: str
    signature: str
    says: str
    body: str
    draw: Callable[[Random], Arguments]
    edges: tuple[Arguments, ...]
    key: tuple[Any, ...]

    @property
    def head(self) -> str:
        return f"def {self.name}{self.signature}:"

    @property
    def source(self) -> str:
        """The reference solution."""
        return f"{self.head}\n{textwrap.indent(textwrap.dedent(self.body).strip(), '    ')}\n"


def numbers(r: Random, low: int = -9, high: int = 20, least: int = 3, most: int = 7) -> list[int]:
    """A list of some whole numbers."""
    return [r.randint(low, high) for _ in range(r.randint(least, most))]


_WORDS = "sun tree river stone apple cat bread cloud window house kitchen otter elephant queen up is Anna level Bob"


def words(r: Random, least: int = 2, most: int = 5) -> list[str]:
    """Some words, short and long, a few of them capitalised or the same forwards and backwards."""
    return [r.choice(_WORDS.split()) for _ in range(r.randint(least, most))]


def counts(r: Random, least: int = 2, most: int = 4) -> dict[str, int]:
    """Some words with a number each."""
    return {word: r.randint(-5, 12) for word in words(r, least, most)}


@dataclass(frozen=True)
class Condition:
    """A condition on a whole number x: in words, in code, the numbers at its bounds, and what it comes to.

    `key` is the same for conditions that are one, such as x > 3 and x >= 4.
    """

    said: str
    code: str
    bounds: tuple[int, ...]
    key: tuple[Any, ...]


def asked(r: Random) -> Condition:
    """A condition, drawn."""
    k, m = r.randint(-3, 12), r.randint(3, 7)
    j = k + r.randint(2, 6)
    return r.choice(
        (
            Condition(f"greater than {k}", f"x > {k}", (k,), ("from", k + 1)),
            Condition(f"at least {k}", f"x >= {k}", (k,), ("from", k)),
            Condition(f"less than {k}", f"x < {k}", (k,), ("to", k - 1)),
            Condition(f"at most {k}", f"x <= {k}", (k,), ("to", k)),
            Condition(f"between {k} and {j}, both included", f"{k} <= x <= {j}", (k, j), ("from", k, "to", j)),
            Condition(f"divisible by {m}", f"x % {m} == 0", (m,), ("by", m)),
            Condition(f"not divisible by {m}", f"x % {m} != 0", (m,), ("not by", m)),
            Condition("even", "x % 2 == 0", (2,), ("by", 2)),
            Condition("odd", "x % 2 == 1", (1,), ("not by", 2)),
        )
    )


def made(r: Random) -> tuple[str, str]:
    """What becomes of a whole number x: in words, as in `each multiplied by 3`, and in code."""
    k = r.randint(2, 6)
    return r.choice(
        (
            (f"multiplied by {k}", f"x * {k}"),
            (f"increased by {k}", f"x + {k}"),
            (f"decreased by {k}", f"x - {k}"),
            ("squared", "x * x"),
            ("with its sign changed", "-x"),
        )
    )
