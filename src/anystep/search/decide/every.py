"""Every answer that was found, the most frequent first: what a checker outside is given to choose from."""

from __future__ import annotations

from collections.abc import Hashable

from anystep.population import Decision, Population, Verdict
from anystep.search.decide.votes import first_finished, majority


def _every(population: Population) -> Verdict:
    rows: dict[Hashable, list[int]] = {}
    for row, answer in enumerate(population.answers or ()):
        if population.done[row] and answer is not None:
            rows.setdefault(answer, []).append(row)
    if not rows:
        return first_finished(population)
    ordered = sorted(rows.values(), key=lambda own: (-len(own), own[0]))
    return Verdict(ordered[0][0], majority(population).support, submitted=tuple(own[0] for own in ordered))


every_answer = Decision("every_answer", _every)
"""Submits all distinct answers of the finished samples, the most frequent first; the answer itself is `majority`'s."""
