"""Best-first search: the one core of `astar` and `astar_decode`, which differ in what a step costs and in what they
expect to be still to pay."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystep.population import Population
from anystep.procedure import Ask, read, score, start, step
from anystep.process import Floats, Reward


class Marks(NamedTuple):
    """What costs may be computed from, all (n,): log-probabilities of the paths, values of the reward (NaN where it was
    not asked), and which states are done."""

    logp: Floats
    value: Floats
    done: NDArray[np.bool_]

    @classmethod
    def of(cls, population: Population, value: Floats) -> Marks:
        return cls(population.logp, value, population.done)

    def row(self, i: int) -> Marks:
        return Marks(self.logp[i : i + 1], self.value[i : i + 1], self.done[i : i + 1])


Pair = Callable[[Marks, Marks], tuple[Floats, Floats]]
"""A cost and its heuristic: of the marks before a step, (1,), and after it, (n,), what each step costs, and what is
expected to be still to pay from there, both (n,) and 0 or more."""


class Entry(NamedTuple):
    """A state on the frontier, in the order in which states are taken: by cost so far plus cost to go, then the deeper,
    then the older. It is row `row` of the siblings that it was made with, and has been extended `times` times."""

    f: float
    height: int
    id: int
    row: int
    paid: float
    siblings: Population
    marks: Marks
    times: int = 0

    @property
    def done(self) -> bool:
        return bool(self.marks.done[self.row])

    def state(self) -> Population:
        return self.siblings.take([self.row])


@dataclass
class Search:
    """What a search holds: the frontier, the goals it has taken from it, in order, and what each state's children say,
    where it may be extended again."""

    root: Population
    frontier: list[Entry] = field(default_factory=list)
    goals: list[Entry] = field(default_factory=list)
    said: dict[int, set[str]] = field(default_factory=dict)

    def finished(self) -> Population | None:
        """The goals; else all finished states that are still on the frontier, the best first; None without any."""
        found = self.goals or sorted(entry for entry in self.frontier if entry.done)
        states = [entry.state().scored([entry.marks.value[entry.row]]) for entry in found]
        return states[0].join(*states[1:]) if states else None

    def promising(self) -> Population | None:
        """The best open state that is not the root, else the root, else None."""
        live = sorted(entry for entry in self.frontier if not entry.done)
        return next((entry.state() for entry in [*(e for e in live if e.height), *live]), None)


def best_first(
    by: Reward,
    pair: Pair,
    branch: int,
    expansions: int,
    goals: int = 1,
    distinct: bool = False,
    reopen: float | None = None,
) -> Generator[Ask, Any, Search]:
    """Extends the state with the least cost so far plus cost to go by `branch` children, and scores each of them once,
    until `goals` finished states were the least; at most `expansions` times, which is checked before each.

    distinct: children that say what an elder sibling said are left out before they are scored. reopen: an extended
    state stays on the frontier, and each doubling of how often it was extended adds this much to what it stands at.
    """
    root = yield from start(1)
    search = Search(root)
    if root.live.any():
        heappush(search.frontier, Entry(0.0, 0, -1, 0, 0.0, root, Marks.of(root, np.full(1, np.nan))))
    while search.frontier and len(search.goals) < goals:
        if search.frontier[0].done:
            search.goals.append(heappop(search.frontier))
            continue
        if expansions == 0:
            break
        expansions -= 1
        entry = heappop(search.frontier)
        children = yield from step(entry.state(), branch)
        if distinct:
            children = yield from _fresh(search, entry, children)
        if reopen is not None:
            added = reopen * math.log2((2 + entry.times) / (1 + entry.times))
            heappush(search.frontier, entry._replace(f=entry.f + added, times=entry.times + 1))
        elif children.failed.all() and not search.frontier:  # it is all there is: it is tried again
            heappush(search.frontier, entry)
        if len(children):
            _open(search, entry, children, Marks.of(children, (yield from score(children, by))), pair)
    return search


def _fresh(search: Search, parent: Entry, children: Population) -> Generator[Ask, Any, Population]:
    """The children that say something else than their elder siblings."""
    said, new = search.said.setdefault(parent.id, set()), []
    for row, text in enumerate((yield from read(children)).texts or ()):
        if not text or text not in said:
            new.append(row)
        said.add(text)
    return children.take(new)


def _open(search: Search, parent: Entry, children: Population, marks: Marks, pair: Pair) -> None:
    """Put children on the frontier, but for those that failed or cost infinitely much."""
    cost, togo = pair(parent.marks.row(parent.row), marks)
    paid = parent.paid + cost
    f = np.where(children.failed, np.inf, paid + togo)
    for row in np.flatnonzero(np.isfinite(f)).tolist():
        own = (float(f[row]), parent.height - 1, int(children.id[row]), row, float(paid[row]))
        heappush(search.frontier, Entry(*own, children, marks))
