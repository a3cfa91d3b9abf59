"""Drive runs and compare what they concluded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from anystep.answer import AllFailed
from anystep.calls import Reply
from anystep.drive import drive, groups, perform
from anystep.run import Run
from anystep.testing.checks_process import contents


def finish(*runs: Run) -> None:
    """Drive runs to their end; one whose states all failed has its error in `run.error`."""
    try:
        drive(*runs)
    except AllFailed:
        return


def one_round(run: Run) -> None:
    """Perform what a run asks for and tell it, merged as `drive` would merge it."""
    found: dict[int, Reply] = {}
    for group in groups(run.calls):
        found.update(zip(group, perform([run.calls[i] for i in group]), strict=True))
    run.tell([found[i] for i in range(len(run.calls))])


def outcome(run: Run) -> dict[str, Any]:
    """All that a run concluded, comparable."""
    if run.answer is None:
        return {"error": str(run.error), "cost": counts(run)}
    population, answer = run.answer.population, run.answer
    found: dict[str, Any] = {"value": answer.value, "evidence": answer.evidence, "stopped": answer.stopped_because}
    if population is not None:
        found |= {
            book: getattr(population, book).tolist()
            for book in ("key", "id", "status", "cut", "logp", "logw", "weights")
        }
        found |= {"scores": repr(population.scores.tolist()), "states": contents(run.process, population.states)}
    return found | {"cost": counts(run)}


def counts(run: Run) -> tuple[Any, ...]:
    spent = run.spent
    return spent.prompt, spent.generated, spent.evaluations, spent.calls, round(spent.money, 9), round(spent.flops, 3)


def same_outcome(one: Run, other: Run, what: str) -> None:
    a, b = outcome(one), outcome(other)
    for key in a.keys() | b.keys():
        assert a.get(key) == b.get(key), f"{one.method}: {what} changes {key}: {a.get(key)} and {b.get(key)}"


def near_outcome(one: Run, other: Run, what: str) -> None:
    """As `same_outcome`, but for the cost, and for what another order of adding rounds away."""
    a, b = outcome(one), outcome(other)
    sums = ("logp", "logw", "weights", "evidence")
    for key in (a.keys() | b.keys()) - {"cost", "scores", *sums}:
        assert a.get(key) == b.get(key), f"{one.method}: {what} changes {key}: {a.get(key)} and {b.get(key)}"
    for key in (*sums, "scores"):
        x, y = (_book(run, key) for run in (one, other))
        assert np.allclose(x, y, equal_nan=True), f"{one.method}: {what} changes {key}: {x} and {y}"


def _book(run: Run, name: str) -> Any:
    """A book of the final population; empty where there is none."""
    population = None if run.answer is None else run.answer.population
    value = None if population is None else getattr(population, name)
    return np.zeros(0) if value is None else value


def merged(make: Callable[[int], Run], seeds: Iterable[int]) -> list[Run]:
    """Runs for many seeds, driven some hundreds to a batch: thousands of small ones in seconds."""
    runs = [make(seed) for seed in seeds]
    for first in range(0, len(runs), 500):
        finish(*runs[first : first + 500])
    return runs
