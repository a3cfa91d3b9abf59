"""What a finite program means, exactly: every run of it, with its probability and its factors multiplied."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Any

from anystep.bayes.programs import Factor, Inner, Number, Program, Sample, begun, effect_of
from anystep.errors import UsageError

Measure = dict[Hashable, Number]


def measure(program: Program, key: Callable[[Any], Hashable] = lambda value: value, most: int = 10**6) -> Measure:
    """The unnormalised measure of a program whose distributions are finite: mass by outcome, as exact as its masses.

    key: makes an outcome hashable. most: runs at most; raises UsageError beyond, and for a distribution that is not
    finite. Every run is replayed from its beginning, so a program must do nothing but yield and return.
    """
    found: Measure = {}
    waiting: list[tuple[tuple[Any, ...], Number]] = [((), Fraction(1))]
    for _ in range(most):
        if not waiting:
            return found
        chosen, mass = waiting.pop()
        reached = _replay(program, chosen)
        if isinstance(reached, Sample):
            waiting += [((*chosen, value), mass * m) for value, m in reached.distribution.support()]
        elif reached is not None:
            at = key(reached[0])
            found[at] = found.get(at, Fraction(0)) + mass * reached[1]
    raise UsageError(f"More than {most} runs: enumerate a smaller program, or call measure(program, most={10 * most}).")


def normalised(found: Measure) -> Measure:
    """The same as probabilities. Raises UsageError for a measure of mass 0."""
    total = sum(found.values())
    if total == 0:
        raise UsageError("Nothing has mass: what the program observes is impossible.")
    return {value: mass / total for value, mass in found.items()}


def _replay(program: Program, chosen: tuple[Any, ...]) -> Sample | tuple[Any, Number] | None:
    """The first choice that is open after these; or the outcome and its factors multiplied; None where one is 0."""
    weight: Number = Fraction(1)
    stack, answer, left = [begun(program)], None, iter(chosen)
    while stack:
        try:
            effect = effect_of(stack[-1], answer, len(stack) > 1)
        except StopIteration as end:
            answer = end.value
            stack.pop()
            continue
        answer = None
        if isinstance(effect, Inner):
            stack.append(begun(effect.program))
        elif isinstance(effect, Factor):
            weight = weight * effect.weight
            if weight == 0:
                return None
        else:
            try:
                answer = next(left)
            except StopIteration:
                return effect
    return answer, weight
