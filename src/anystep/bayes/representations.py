"""Inference as a stack of representations: programs that run programs, each of which means what the inner one means.

A computation can be suspended at its factors (`Suspended`), many can make a weighted population (`spawn`, `resample`,
`push_evidence`, `collapse`), and one can be traced and its trace changed (`mh_step`). Every function here is itself a
program: it yields the choices that it makes, so its meaning can be enumerated, and compared with the model's.

Source: Scibior et al., "Denotational Validation of Higher-Order Bayesian Inference" (POPL 2018).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from typing import Any

from anystep.bayes.programs import (
    Distribution,
    Effect,
    Factor,
    Inner,
    Number,
    Program,
    Sample,
    begun,
    choice,
    effect_of,
    flip,
)

Site = tuple[Distribution | Inner, Any]  # what was asked, and the value that was had
Run = Generator[Effect, Any, "Suspended"]


@dataclass(frozen=True)
class Suspended:
    """A program that has been run up to a factor, or to its end.

    trace: its choices so far, with what they were drawn from. factors: those that it has met. value: what it returned,
    once `done`. It can be taken up any number of times: what it did is replayed.
    """

    program: Program
    trace: tuple[Site, ...] = ()
    factors: tuple[Number, ...] = ()
    done: bool = False
    value: Any = None

    @property
    def weight(self) -> Number:
        """Its factors multiplied; many of floats may vanish."""
        return product(self.factors)

    @property
    def possible(self) -> bool:
        """Whether none of its factors is 0."""
        return all(factor > 0 for factor in self.factors)


def product(factors: Iterable[Number]) -> Number:
    total: Number = Fraction(1)
    for factor in factors:
        total = total * factor
    return total


def advance(suspended: Suspended, factors: int | None = 1) -> Run:
    """Go on past so many more factors, or to the end with None; their product joins the weight and is not yielded.

    Preserves the measure: factors are collected in the weight, which `collapse` or `weighed` gives back.
    """
    if suspended.done:
        return suspended
    most = None if factors is None else len(suspended.factors) + factors
    return (yield from replay(suspended.program, suspended.trace, most))


def replay(program: Program, kept: tuple[Site, ...], most: int | None, strict: bool = True) -> Run:
    """Run up to `most` factors, with the values of `kept` where they still fit and fresh draws elsewhere.

    strict: `kept` comes from the same choices, so every value of it fits; otherwise a value is kept where its site asks
    for something of the same kind.
    """
    trace: list[Site] = []
    factors: list[Number] = []
    answer, going = None, begun(program)
    while True:
        try:
            effect = effect_of(going, answer)
        except StopIteration as end:
            return Suspended(program, tuple(trace), tuple(factors), True, end.value)
        if isinstance(effect, Factor):
            factors.append(effect.weight)
            answer = None
            if len(factors) == most:
                return Suspended(program, tuple(trace), tuple(factors))
            continue
        site = effect.distribution if isinstance(effect, Sample) else effect
        at = len(trace)
        if at < len(kept) and (strict or _fits(kept[at][0], site)):
            answer = kept[at][1]
        else:
            answer = yield effect
        trace.append((site, answer))


def _fits(had: Distribution | Inner, asked: Distribution | Inner) -> bool:
    """Whether a value drawn from the one may stand for a draw from the other: a symmetric relation."""
    if isinstance(had, Inner) or isinstance(asked, Inner):
        return isinstance(had, Inner) and isinstance(asked, Inner) and had.given == asked.given
    return had.kind() == asked.kind()


def weighed(suspended: Suspended) -> Generator[Effect, Any, Any]:
    """Yield the weight as a factor and return the value: from a weighted value back to a program. Runs to the end."""
    ended = yield from advance(suspended, None)
    yield Factor(ended.weight)
    return ended.value


@dataclass(frozen=True)
class Particle:
    """A suspended computation with the weight that it has in its population, its own factors included."""

    of: Suspended
    weight: Number

    def moved(self, to: Suspended) -> Particle:
        """Its weight, with the factors that it met on the way."""
        return Particle(to, self.weight * product(to.factors[len(self.of.factors) :]))


Population = list[Particle]


def spawn(program: Program, n: int) -> Population:
    """n computations that have not begun, each of weight 1 / n. Preserves the measure."""
    return [Particle(Suspended(program), Fraction(1, n)) for _ in range(n)]


def evidence(population: Population) -> Number:
    """The total weight: an unbiased estimate of the model's mass."""
    return sum((p.weight for p in population), Fraction(0))


def forward(population: Population, factors: int | None = 1) -> Generator[Effect, Any, Population]:
    """Advance every particle. Preserves the measure."""
    moved = []
    for particle in population:
        moved.append(particle.moved((yield from advance(particle.of, factors))))
    return moved


def resample(population: Population) -> Generator[Effect, Any, Population]:
    """As many draws in proportion to weight, each with the average weight. Preserves the measure in expectation over
    the draws; a population without weight is left as it is."""
    total, n = evidence(population), len(population)
    if total == 0:
        return population
    ancestors = choice([p.weight for p in population])
    drawn = []
    for _ in range(n):
        drawn.append(replace(population[(yield Sample(ancestors))], weight=total / n))
    return drawn


def push_evidence(population: Population) -> Generator[Effect, Any, Population]:
    """Move the total weight out, as a factor: what is left sums to one. Preserves the measure."""
    total = evidence(population)
    yield Factor(total)
    return [replace(p, weight=p.weight / total) for p in population] if total else population


def collapse(population: Population) -> Generator[Effect, Any, Any]:
    """One particle's value, drawn by weight, with the total weight as a factor: from a population back to a program.

    Runs what is not done to its end. Preserves the measure.
    """
    ended = yield from forward(population, None)
    total = evidence(ended)
    yield Factor(total)
    if total == 0:
        return None
    chosen: Particle = ended[(yield Sample(choice([p.weight for p in ended])))]
    return chosen.of.value


def mh_step(suspended: Suspended) -> Run:
    """One single-site Metropolis-Hastings transition on the trace, up to the factor where the computation stands.

    A site is drawn uniformly and its value again from what it was drawn from; the values after it are kept where they
    fit, and drawn where they do not. Leaves the law of traces weighted by their factors invariant; started there it
    preserves the measure, from elsewhere it converges. A computation without choices, or of weight 0, stays.
    A move whose ratio is no number, because floats ran over, is refused.

    Source: Wingate et al., "Lightweight Implementations of Probabilistic Programming Languages" (AISTATS 2011), with
    the correction of the trace's length n / n'.
    """
    if not suspended.trace or not suspended.possible:
        return suspended
    site = yield Sample(choice([Fraction(1)] * len(suspended.trace)))
    asked = suspended.trace[site][0]
    fresh = yield (asked if isinstance(asked, Inner) else Sample(asked))
    kept = (*suspended.trace[:site], (asked, fresh), *suspended.trace[site + 1 :])
    most = None if suspended.done else len(suspended.factors)
    proposed = yield from replay(suspended.program, kept, most, strict=False)
    ratio = quotient(proposed.factors, suspended.factors) * _kept_mass(suspended, proposed, site)
    ratio = ratio * lengths(suspended, proposed)
    accepted = yield Sample(flip(min(ratio, Fraction(1)) if ratio >= 0 else Fraction(0)))
    return proposed if accepted else suspended


def lengths(old: Suspended, new: Suspended) -> Fraction:
    """How much likelier the site was to be picked in the old trace than it is in the new one."""
    return Fraction(len(old.trace), len(new.trace))


def quotient(above: Sequence[Number], below: Sequence[Number]) -> Number:
    """One product over another, term by term as far as both go, so that long ones of floats do not vanish first."""
    total: Number = Fraction(1)
    for a, b in zip_longest(above, below, fillvalue=Fraction(1)):
        total = total * a / b
    return total


def _kept_mass(old: Suspended, new: Suspended, site: int) -> Number:
    """Masses of the values that both traces share, under the new distributions over the old ones."""
    ratio: Number = Fraction(1)
    for at, ((before, value), (after, same)) in enumerate(zip(old.trace, new.trace, strict=False)):
        if at > site and not isinstance(before, Inner) and not isinstance(after, Inner) and _fits(before, after):
            ratio = ratio * after.mass(same) / before.mass(value)
    return ratio
