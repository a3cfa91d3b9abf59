"""The PC algorithm: edges go where a test finds independence, colliders where the middle was no part of the reason.

Source: Spirtes and Glymour 1991; in the order-independent form of Colombo and Maathuis, JMLR 2014: neighbours are those
at the start of a level, and the separating set is the one with the largest p-value of its level.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from anystep.bayes.causal.independence import Independence
from anystep.bayes.causal.patterns import Marks, oriented

Apart = dict[tuple[int, int], frozenset[int]]


def pc(tests: Independence, alpha: float = 0.01, most: int = 3) -> Marks:
    """The pattern that tests at level alpha give; most: variables conditioned on.

    Tends to the true pattern for faithful models without hidden causes, as rows grow and alpha falls. Directions that
    two colliders claim both ways are left open.
    """
    near, apart = skeleton(tests, alpha, most)
    marks, heads = near.copy(), np.zeros_like(near)
    for b in range(len(near)):
        for a, c in combinations(np.flatnonzero(near[b]).tolist(), 2):
            if not near[a, c] and b not in apart[a, c]:
                heads[a, b] = heads[c, b] = True
    heads &= ~heads.T
    marks &= ~heads.T
    return oriented(marks)


def skeleton(tests: Independence, alpha: float, most: int) -> tuple[Marks, Apart]:
    """Which pairs no set of neighbours makes independent, and for the others the set that did."""
    near = ~np.eye(tests.variables, dtype=bool)
    apart: Apart = {}
    for size in range(most + 1):
        before = near.copy()
        for a, b in np.argwhere(np.triu(before, 1)).tolist():
            sets = {
                s
                for end, other in ((a, b), (b, a))
                for s in combinations([v for v in np.flatnonzero(before[end]).tolist() if v != other], size)
            }
            if not sets:
                continue
            value, chosen = max((tests.p(s)[a, b], s) for s in sorted(sets))
            if value > alpha:
                near[a, b] = near[b, a] = False
                apart[a, b] = frozenset(chosen)
    return near, apart
