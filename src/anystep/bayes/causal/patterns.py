"""Equivalence classes of acyclic graphs as patterns: a bool table, [i, j] for i -> j, both ways for an open edge."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from anystep.errors import UsageError

Marks = np.ndarray[Any, np.dtype[np.bool_]]


def oriented(marks: Marks) -> Marks:
    """Meek's rules: every undirected edge that no member of the class can turn the other way gets its direction.

    Source: Meek, Causal inference and causal explanation with background knowledge, UAI 1995 (rules 1 to 3).
    """
    marks = marks.copy()
    while True:
        arrow, line, near = marks & ~marks.T, marks & marks.T, marks | marks.T
        found = np.zeros_like(marks)
        for a, b in np.argwhere(line):
            chain = np.any(arrow[:, a] & ~near[:, b] & (np.arange(len(marks)) != b))  # c -> a - b, c and b apart
            round_trip = np.any(arrow[a] & arrow[:, b])  # a -> c -> b
            roofs = np.flatnonzero(line[a] & arrow[:, b])  # a - c -> b and a - d -> b, c and d apart
            found[a, b] = chain or round_trip or any(not near[c, d] for c, d in combinations(roofs, 2))
        found &= ~found.T
        if not found.any():
            return marks
        marks &= ~found.T


def pattern(edges: Any) -> Marks:
    """The pattern of an acyclic graph, edges[i, j] for i -> j: its skeleton, its colliders and what follows."""
    edges = np.asarray(edges, dtype=bool)
    near = edges | edges.T
    marks = near.copy()
    for b in range(len(edges)):
        for a, c in combinations(np.flatnonzero(edges[:, b]), 2):
            if not near[a, c]:
                marks[b, a] = marks[b, c] = False
    return oriented(marks)


def member(marks: Marks) -> Marks | None:
    """An acyclic graph of the class, None where there is none: sinks are taken off one after another.

    Source: Dor and Tarsi, A simple algorithm to construct a consistent extension of a partially oriented graph, 1992.
    """
    left, edges = marks.copy(), marks & ~marks.T
    alive = list(range(len(marks)))
    while alive:
        sink = next((v for v in alive if _sink(left, v)), None)
        if sink is None:
            return None
        edges[left[sink] & left[:, sink], sink] = True
        left[sink], left[:, sink] = False, False
        alive.remove(sink)
    return edges


def _sink(marks: Marks, v: int) -> bool:
    """Whether v has no arrow out, and each of its undirected neighbours is a neighbour of all its others."""
    near, line = marks | marks.T, marks[v] & marks[:, v]
    if np.any(marks[v] & ~marks[:, v]):
        return False
    return all(near[u, w] for u in np.flatnonzero(line) for w in np.flatnonzero(near[v]) if w != u)


def hamming(one: Any, other: Any) -> int:
    """Structural Hamming distance of two patterns: pairs whose edge is missing, extra, or otherwise directed."""
    one, other = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if one.shape != other.shape or one.ndim != 2:
        raise UsageError(f"hamming(pattern, pattern): two square tables of one size, not {one.shape}, {other.shape}.")
    differ = (one != other) | (one != other).T
    return int(np.triu(differ, 1).sum())
