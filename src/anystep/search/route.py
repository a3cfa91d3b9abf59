"""Two processes take turns on the same states: who writes a state's next step is decided state by state.

Keys follow (parent, writer, ordinal), so a state whose steps are all by one process draws just as when that process
alone is stepped: that is what makes the extremes of a router exact.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.population import Population
from anystep.procedure import All, Ask, Exploring, Step, score
from anystep.process import Process, Reward

Mask = NDArray[np.bool_]


def above(population: Population, rows: Mask, by: Reward, threshold: float) -> Generator[Ask, Any, Mask]:
    """Which of `rows` score above the threshold, (n,), False elsewhere; a state that cannot be scored counts as above.

    Where the reward's range says so beforehand, nothing is scored and nothing paid.
    """
    least, most = by.range
    if not rows.any() or threshold >= most:
        return np.zeros(len(population), dtype=bool)
    if threshold < least:
        return rows.copy()
    found = np.zeros(len(population), dtype=bool)
    values = yield from score(population.take(rows), by)
    found[rows] = ~(values <= threshold)
    return found


def shared_step(population: Population, handed: Mask, other: Process) -> Exploring:
    """The next step of every live state in one merged batch: of `handed` rows by `other`, else by the run's process."""
    parts = [(rows, by) for rows, by in ((~handed, None), (handed, other)) if rows.any()]
    stepped: list[Population] = yield All(tuple(Step(population.take(rows), by=by) for rows, by in parts))
    for (rows, _), moved in zip(parts, stepped, strict=True):
        population = population.put(rows, moved)
    return population
