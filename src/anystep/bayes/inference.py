"""The named algorithms as compositions of representations: each a program that means what its model means."""

from __future__ import annotations

from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any

from anystep.bayes.programs import Effect, Effects, Factor, Inner, Program
from anystep.bayes.representations import (
    Particle,
    Population,
    Suspended,
    advance,
    collapse,
    evidence,
    forward,
    mh_step,
    resample,
    spawn,
)


def importance(program: Program, n: int) -> Program:
    """n weighted runs, one of them drawn by weight. Preserves the measure; n above 1 makes the weight less variable."""
    return lambda: collapse(spawn(program, n))


def smc_population(program: Program, n: int, steps: int, moves: int = 0) -> Generator[Effect, Any, Population]:
    """`steps` times: advance to the next factor, resample, and move each particle by `moves` trace transitions; then to
    the end. moves=0 is the bootstrap filter, more is resample-move. Preserves the measure."""
    population = spawn(program, n)
    for _ in range(steps):
        population = yield from forward(population)
        population = yield from resample(population)
        for _ in range(moves):
            population = yield from moved(population)
    return (yield from forward(population, None))


def moved(population: Population) -> Generator[Effect, Any, Population]:
    """Each particle through one trace transition; weights stay. Preserves the measure."""
    after = []
    for particle in population:
        after.append(Particle((yield from mh_step(particle.of)), particle.weight))
    return after


def smc(program: Program, n: int, steps: int, moves: int = 0) -> Program:
    """Sequential Monte Carlo, one particle drawn by weight at the end. Preserves the measure."""

    def run() -> Effects:
        population = yield from smc_population(program, n, steps, moves)
        return (yield from collapse(population))

    return run


def trace_mh(program: Program, transitions: int) -> Generator[Effect, Any, list[Any]]:
    """The values of a chain of single-site transitions, from the first run whose weight is not 0.

    Its law tends to the program's normalised measure; a finite chain still leans on its start.
    """
    state = yield from advance(Suspended(program), None)
    while not state.possible:
        state = yield from advance(Suspended(program), None)
    values = []
    for _ in range(transitions):
        state = yield from mh_step(state)
        values.append(state.value)
    return values


def particle_marginal(prior: Program, model: Callable[[Any], Program], n: int, steps: int) -> Program:
    """Parameters from `prior`, and the evidence of a particle filter on `model(parameters)` as their likelihood.

    Returns the parameters; `trace_mh` of it is particle marginal Metropolis-Hastings. Preserves the measure of the
    parameters under the whole model, however few the particles, because the evidence is unbiased.
    """

    def run() -> Effects:
        parameters = yield from prior()
        total = yield Inner(lambda: _evidence(model(parameters), n, steps), given=("evidence", parameters))
        yield Factor(total)
        return parameters

    return run


def _evidence(program: Program, n: int, steps: int) -> Generator[Effect, Any, Any]:
    population = yield from smc_population(program, n, steps)
    return evidence(population) if population else Fraction(0)
