"""Finite programs with awkward shapes, and every stack of representations that must mean what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction as F
from typing import Any

import numpy as np

from anystep import keys
from anystep.bayes import (
    Factor,
    Finite,
    Observe,
    Particle,
    Program,
    Sample,
    Suspended,
    advance,
    collapse,
    flip,
    forward,
    importance,
    mh_step,
    push_evidence,
    resample,
    smc,
    spawn,
    weighed,
)
from anystep.bayes.representations import Population


def sprinkler() -> Any:
    """Was it rain? The lawn is wet."""
    rain = yield Sample(flip(F(1, 5)))
    on = yield Sample(flip(F(1, 100) if rain else F(2, 5)))
    yield Observe(flip({(1, 1): F(99, 100), (1, 0): F(4, 5), (0, 1): F(9, 10), (0, 0): F(0)}[int(rain), int(on)]), True)
    return rain


def varying() -> Any:
    """How many choices it makes, and which, depends on the choices; factors in between; no two sites are alike."""
    n = yield Sample(Finite((1, 2), (F(3, 5), F(2, 5))))
    total = 0
    for i in range(n):
        if (yield Sample(flip(F(1, 3 + i + total)))):
            total += 1
            yield Factor(F(2, 3))
    yield Factor(F(1, 2 + n))
    if total == 1:
        total += 10 * (yield Sample(Finite((0, 1, 2), (F(1, 7), F(4, 7), F(2, 7)))))
    return total


def adders() -> Any:
    """Returns a function: programs are higher-order."""
    n = yield Sample(Finite((1, 2), (F(1, 3), F(2, 3))))
    yield Factor(F(1, n + 1))
    return lambda x: x + n


def resampled(model: Program, how: Callable[[Population], Any]) -> Any:
    """Two particles past the first factor, treated so, and one of them drawn."""
    population = yield from forward(spawn(model, 2))
    return (yield from collapse((yield from how(population))))


def transition(model: Program) -> Any:
    """Both ends of a transition that begins at the model's own law of traces, weighted by its factors there."""
    state = yield from advance(Suspended(model), None)
    yield Factor(state.weight)
    return state, (yield from mh_step(state))


def moved(model: Program) -> Any:
    return (yield from transition(model))[1].value


def resample_move(model: Program) -> Any:
    """Resampled after the first factor; one of the particles is moved by a transition of its trace so far."""
    first, second = yield from resample((yield from forward(spawn(model, 2))))
    shifted = Particle((yield from mh_step(first.of)), first.weight)
    return (yield from collapse([shifted, second]))


STACKS: dict[str, Callable[[Program], Program]] = {
    "weighed": lambda model: lambda: weighed(Suspended(model)),
    "spawn": lambda model: lambda: collapse(spawn(model, 2)),
    "importance": lambda model: importance(model, 2),
    "resample": lambda model: lambda: resampled(model, resample),
    "push_evidence": lambda model: lambda: resampled(model, push_evidence),
    "filter": lambda model: smc(model, 2, 1),
    "transition": lambda model: lambda: moved(model),
    "resample-move": lambda model: lambda: resample_move(model),
}


def positive(found: dict[Any, Any]) -> dict[Any, Any]:
    """A measure without the outcomes of mass 0."""
    return {value: mass for value, mass in found.items() if mass}


def uniforms(seed: int) -> Iterator[float]:
    """As many uniforms as are wanted."""
    where, key = 0, keys.roots(seed, (), np.arange(1))[0]
    while True:
        yield from keys.uniforms(key, where, np.arange(64)).tolist()
        where += 1
