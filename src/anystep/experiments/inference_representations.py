"""Row 52: representations of inference mean what their programs mean, as fractions; and the bugs that this finds.

Stated time: one minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction as F
from typing import Any

from anystep.bayes import measure, normalised, representations, resample, smc, trace_mh
from anystep.bayes.process import perform
from anystep.bayes.representations import Population
from anystep.experiments._programs import (
    STACKS,
    adders,
    moved,
    positive,
    resampled,
    sprinkler,
    transition,
    uniforms,
    varying,
)
from anystep.experiments.check import Check, Result

ROW = 52
MODELS = (sprinkler, varying)


def run(
    seed: int = 0, progress: Callable[[str], None] = print, transitions: int = 20_000, draws: int = 2_000
) -> Result:
    """Check every clause of the row.

    transitions: of the trace chain. draws: filters of 2 and of 40 particles, one value each.
    """
    began = time.perf_counter()
    apart = sum(positive(measure(stack(m))) != positive(measure(m)) for stack in STACKS.values() for m in MODELS)
    progress(f"{len(STACKS) * len(MODELS)} stacks enumerated, {apart} of another measure")
    unbalanced, lengths = balance()
    functions = normalised(measure(lambda: STACKS["importance"](adders)(), key=lambda add: add(10)))
    chain = distance([perform(trace_mh(varying, transitions), uniforms(seed))], varying)
    few, many = (
        distance([[perform(smc(sprinkler, n, 1)(), uniforms(1 + seed + i)) for i in range(draws)]], sprinkler)
        for n in (2, 40)
    )
    checks = (
        Check("stacks of representations whose enumerated measure is not the program's", apart, "==", 0),
        Check("total variation of trace-MH from the posterior", chain, "<=", 0.02),
        Check("total variation of filters of 40 particles from the posterior", many, "<=", 0.03),
        Check("how much nearer they are than filters of 2 particles", few - many, ">", 0),
        Check("pairs of traces that break detailed balance", unbalanced, "==", 0),
        Check("pairs whose lengths differ, of those", lengths, ">", 0),
        Check("error of a posterior over functions", abs(float(functions[11]) - 3 / 7), "==", 0),
        Check("seeded bugs that enumeration catches, of 2", caught(), "==", 2),
    )
    notes = (
        f"{len(STACKS)} stacks on {len(MODELS)} programs, as fractions; {transitions} transitions; {draws} filters of "
        "each size. The bugs: the average weight dropped in resampling, the ratio of lengths in Metropolis-Hastings."
    )
    return Result("inference_representations", ROW, checks, time.perf_counter() - began, seed, notes)


def balance() -> tuple[int, int]:
    """Of the flows between traces: how many are not as large as the flow back, and how many change the length."""
    flow: dict[Any, Any] = measure(
        lambda: transition(varying), key=lambda ends: tuple(tuple(value for _, value in end.trace) for end in ends)
    )
    broken = sum(mass != flow.get((ends[1], ends[0]), 0) for ends, mass in flow.items())
    return broken, sum(len(ends[0]) != len(ends[1]) for ends in flow)


def distance(chains: list[list[Any]], model: Any) -> float:
    """Total variation of what was drawn from the enumerated posterior."""
    drawn = [value for chain in chains for value in chain]
    exact = normalised(measure(model))
    return 0.5 * sum(abs(drawn.count(value) / len(drawn) - float(mass)) for value, mass in exact.items())


def caught() -> int:
    """How many of the two bugs change an enumerated measure."""

    def dropped(population: Population) -> Any:
        return [replace(p, weight=F(1, len(population))) for p in (yield from resample(population))]

    found = [positive(measure(lambda: resampled(sprinkler, dropped))) != positive(measure(sprinkler))]
    right, representations.lengths = representations.lengths, lambda old, new: F(1)
    try:
        found.append(positive(measure(lambda: moved(varying))) != positive(measure(varying)))
    finally:
        representations.lengths = right
    return sum(found)
