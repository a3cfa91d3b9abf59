"""Probabilistic programs: ordinary generator functions that sample, observe, and return.

    def weather():
        rain = yield Sample(Finite((True, False), (Fraction(1, 5), Fraction(4, 5))))
        yield Observe(flip(Fraction(9, 10) if rain else Fraction(1, 4)), True)
        return rain

A program means an unnormalised measure: of each outcome, the expectation of the product of its factors. Where masses
are fractions, so is everything that is computed of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import special

from anystep.errors import UsageError

Number = Fraction | float | int
Effects = Generator["Effect", Any, Any]
Program = Callable[[], Effects]


class Distribution(ABC):
    """What a program can sample from and observe.

    `kind` decides whether a value may be kept where another distribution takes this one's place: equal kinds have equal
    supports.
    """

    @abstractmethod
    def mass(self, value: Any) -> Number:
        """Probability or density of a value, 0 outside the support."""

    @abstractmethod
    def draw(self, u: float) -> Any:
        """The value at u in [0, 1): inverse distribution, so equal u give near values of near distributions."""

    @abstractmethod
    def kind(self) -> Hashable:
        """What its support is."""

    def support(self) -> Sequence[tuple[Any, Number]]:
        """Its values and their masses, if they are finitely many; raises UsageError if they are not."""
        raise UsageError(f"{self!r} has no finite support; programs of Finite distributions can be enumerated.")


@dataclass(frozen=True)
class Finite(Distribution):
    """values with masses that sum to one: Fractions stay exact."""

    values: tuple[Any, ...]
    masses: tuple[Number, ...]

    def __post_init__(self) -> None:
        off = abs(float(sum(self.masses)) - 1)
        if len(self.values) != len(self.masses) or min(self.masses, default=-1) < 0 or not off <= 1e-9:
            raise UsageError(f"{self!r}: one mass a value, none negative, summing to one; Finite((0, 1), (0.5, 0.5)).")

    def mass(self, value: Any) -> Number:
        return sum(m for v, m in zip(self.values, self.masses, strict=True) if v == value)

    def draw(self, u: float) -> Any:
        edges = np.cumsum([float(m) for m in self.masses])
        return self.values[min(int(np.searchsorted(edges, u * edges[-1], side="right")), len(self.values) - 1)]

    def kind(self) -> Hashable:
        return "finite", tuple(v for v, m in zip(self.values, self.masses, strict=True) if m)

    def support(self) -> Sequence[tuple[Any, Number]]:
        return [(v, m) for v, m in zip(self.values, self.masses, strict=True) if m]


def flip(p: Number) -> Finite:
    """True with probability p."""
    return Finite((True, False), (p, 1 - p))


def choice(weights: Sequence[Number]) -> Finite:
    """An index, in proportion to its weight. Raises UsageError where no weight is above 0."""
    total = sum(weights)
    if not total > 0:
        raise UsageError(f"choice({list(weights)[:3]!r}): weights of 0 or more, one of them above 0; choice([1, 3]).")
    return Finite(tuple(range(len(weights))), tuple(w / total for w in weights))


@dataclass(frozen=True)
class Normal(Distribution):
    """mean, and standard deviation above 0."""

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise UsageError(f"{self!r}: the standard deviation is positive; Normal(0.0, 1.0).")

    def mass(self, value: Any) -> float:
        z = (value - self.mean) / self.deviation
        return float(np.exp(-0.5 * z * z) / (self.deviation * np.sqrt(2 * np.pi)))

    def draw(self, u: float) -> float:
        return float(self.mean + self.deviation * special.ndtri(max(u, 2.0**-54)))

    def kind(self) -> Hashable:
        return "real line"


@dataclass(frozen=True)
class Uniform(Distribution):
    """Real numbers from low to high."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"{self!r}: low is less than high; Uniform(0.0, 1.0).")

    def mass(self, value: Any) -> float:
        return 1.0 / (self.high - self.low) if self.low <= value < self.high else 0.0

    def draw(self, u: float) -> float:
        return self.low + (self.high - self.low) * u

    def kind(self) -> Hashable:
        return "interval", self.low, self.high


@dataclass(frozen=True)
class Sample:
    """Draw from a distribution; the program goes on with the value."""

    distribution: Distribution

    def __post_init__(self) -> None:
        if not isinstance(self.distribution, Distribution):
            raise UsageError(f"Sample({self.distribution!r}) takes a distribution, as in yield Sample(flip(0.5)).")


@dataclass(frozen=True)
class Factor:
    """Multiply the weight; a program stops there when a population is made of it. weight: 0 or more."""

    weight: Number

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise UsageError(f"{self!r}: a weight is a number, 0 or more; Factor(0.5).")


def Observe(distribution: Distribution, value: Any) -> Factor:  # noqa: N802 - it reads as the effect that it is
    """Condition on having drawn `value`: a factor of its mass."""
    if not isinstance(distribution, Distribution):
        raise UsageError(f"Observe({distribution!r}, {value!r}): a distribution first, as in Observe(flip(0.5), True).")
    return Factor(distribution.mass(value))


@dataclass(frozen=True)
class Inner:
    """Run another program to its end as one random choice, and go on with its result. It has no factors of its own,
    for a choice that is kept would keep no weight: `yield from` a program with factors, or return its evidence.

    Its mass is not known, so nothing of it is ever kept where something that it depends on has changed: `given` says
    what that is.
    """

    program: Program
    given: Hashable = ()


Effect = Sample | Factor | Inner


def begun(program: Program) -> Effects:
    """A run of the program. Raises UsageError for what is no generator function."""
    going = program()
    if not isinstance(going, Generator):
        raise UsageError(f"A program is a function without arguments that yields effects; this one gave {going!r:.80}.")
    return going


def effect_of(going: Effects, answer: Any, inner: bool = False) -> Effect:
    """What a run yields when it is given this answer. inner: whether it is an `Inner` program's.

    Raises UsageError for what is no effect, and for a factor where none may be.
    """
    effect = going.send(answer)
    if not isinstance(effect, Effect):
        raise UsageError(
            f"A program yields Sample, Factor, Observe or Inner, as in yield Sample(flip(0.5)): {effect!r:.80}."
        )
    if inner and isinstance(effect, Factor):
        raise UsageError(f"{effect!r} within Inner would be lost: yield from that program, or return its evidence.")
    return effect
