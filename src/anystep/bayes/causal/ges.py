"""Greedy equivalence search: the edge whose insertion gains most, until none gains; then deletions in the same way.

Source: Chickering, Optimal structure identification with greedy search, JMLR 2002.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations

import numpy as np

from anystep.bayes.causal.independence import Independence
from anystep.bayes.causal.patterns import Marks, member, pattern

Move = tuple[float, int, int, frozenset[int]]


def ges(tests: Independence, penalty: float | None = None) -> Marks:
    """The pattern at which no insertion and then no deletion gains.

    An edge given the other parents S gains -n log(1 - r^2) - penalty, where r is the partial correlation, rescaled so
    that testwise deletion's smaller n' counts as what it is. penalty: log n by default, the BIC. Tends to the true
    pattern for faithful models without hidden causes, as rows grow.
    """
    cost = float(np.log(tests.rows)) if penalty is None else penalty
    marks = np.zeros((tests.variables, tests.variables), dtype=bool)
    for moves, put in ((insertions, True), (deletions, False)):
        while True:
            found = sorted(moves(tests, marks, cost), key=lambda m: (-m[0], m[1], m[2], sorted(m[3])))
            after = next((new for move in found if (new := _made(marks, move, put)) is not None), None)
            if after is None:
                break
            marks = after
    return marks


def gain(tests: Independence, a: int, b: int, given: Iterable[int], cost: float) -> float:
    """What the edge a -> b adds to the score, when b has the parents given: twice the log-likelihood, less the cost."""
    r = tests.rescaled(given)[a, b]
    return float(-tests.rows * np.log1p(-(r**2)) - cost)


def insertions(tests: Independence, marks: Marks, cost: float) -> Iterator[Move]:
    """Insert(a, b, T) that are valid and gain."""
    near, line, arrow = marks | marks.T, marks & marks.T, marks & ~marks.T
    for a, b in np.argwhere(~near & ~np.eye(len(marks), dtype=bool)).tolist():
        common = set[int](np.flatnonzero(line[b] & near[a]).tolist())
        for extra in _subsets(np.flatnonzero(line[b] & ~near[a]).tolist()):
            base = common | set(extra)
            if _clique(near, base) and not _reaches(marks, b, a, base):
                value = gain(tests, a, b, base | set(np.flatnonzero(arrow[:, b]).tolist()), cost)
                if value > 0:
                    yield value, a, b, frozenset(extra)


def deletions(tests: Independence, marks: Marks, cost: float) -> Iterator[Move]:
    """Delete(a, b, H) that are valid and gain."""
    near, line, arrow = marks | marks.T, marks & marks.T, marks & ~marks.T
    for a, b in np.argwhere(marks).tolist():
        common: list[int] = np.flatnonzero(line[b] & near[a]).tolist()
        for gone in _subsets(common):
            base = set(common) - set(gone)
            if _clique(near, base):
                value = -gain(tests, a, b, (base | set(np.flatnonzero(arrow[:, b]).tolist())) - {a}, cost)
                if value > 0:
                    yield value, a, b, frozenset(gone)


def _made(marks: Marks, move: Move, put: bool) -> Marks | None:
    """The pattern after a move, None where floating-point ties made it one that no graph has."""
    _, a, b, others = move
    new = marks.copy()
    new[a, b], new[b, a] = put, False
    for v in others:  # insertion: T -> b; deletion: b -> H and a -> H
        if put:
            new[b, v] = False
        else:
            new[v, b] = False
            new[v, a] &= not new[a, v]
    graph = member(new)
    return None if graph is None else pattern(graph)


def _clique(near: Marks, some: Iterable[int]) -> bool:
    return all(near[u, v] for u, v in combinations(some, 2))


def _reaches(marks: Marks, start: int, end: int, blocked: set[int]) -> bool:
    """Whether a path of lines and arrows leads from start to end without the blocked."""
    found, waiting = set[int](), [start]
    while waiting:
        v = waiting.pop()
        if v == end:
            return True
        if v not in found:
            found.add(v)
            waiting += [u for u in np.flatnonzero(marks[v]).tolist() if u not in blocked]
    return False


def _subsets(some: Iterable[int]) -> Iterator[tuple[int, ...]]:
    items = list(some)
    return chain.from_iterable(combinations(items, size) for size in range(len(items) + 1))
