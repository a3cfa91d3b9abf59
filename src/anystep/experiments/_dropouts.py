"""Pipelines for causal discovery from data with dropouts, from the plain to the careful."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy import sparse, spatial

from anystep.bayes.causal import Independence, Simulated, ges, hamming, pattern, pc
from anystep.process import Floats

OURS, FREE = "testwise deletion", "no dropouts"
ARMS: dict[str, Callable[[Simulated], Independence]] = {
    FREE: lambda data: Independence(data.latent, "none"),
    OURS: lambda data: Independence(data.seen),
    "zeros not placed": lambda data: Independence(data.seen, placed=False),
    "raw zeros": lambda data: Independence(data.seen, "none"),
    "mean imputed": lambda data: Independence(means(data.seen), "none"),
    "diffusion imputed": lambda data: Independence(diffused(data.seen), "none"),
    "full deletion": lambda data: Independence(data.seen, "all"),
}


def means(seen: Floats) -> Floats:
    """Zeros replaced by the mean of what is there."""
    there = seen != 0
    return np.where(there, seen, seen.sum(0) / np.maximum(there.sum(0), 1))


def diffused(seen: Floats, neighbours: int = 8, steps: int = 3) -> Floats:
    """Zeros replaced by averages over near rows, their near rows, and so on.

    Source: van Dijk et al., Recovering gene interactions from single-cell data using data diffusion, Cell 2018; but
    values that are there stay.
    """
    scaled = (seen - seen.mean(0)) / seen.std(0)
    far, near = spatial.cKDTree(scaled).query(scaled, neighbours + 1)
    width = np.maximum(far[:, neighbours // 2 : neighbours // 2 + 1], 1e-9)
    weight = np.exp(-((far / width) ** 2))
    rows = np.repeat(np.arange(len(seen)), neighbours + 1)
    affinity = sparse.csr_matrix((weight.ravel(), (rows, near.ravel())), shape=(len(seen), len(seen)))
    affinity = affinity + affinity.T
    affinity = sparse.diags_array(1 / np.asarray(affinity.sum(1)).ravel()) @ affinity
    smooth = seen
    for _ in range(steps):
        smooth = affinity @ smooth
    return np.where(seen != 0, seen, smooth)


def distances(data: Simulated, arms: tuple[str, ...] = tuple(ARMS)) -> Floats:
    """Structural Hamming distance from the truth of each arm's PC and GES: (arms, 2)."""
    true = pattern(data.edges)
    tests = [ARMS[arm](data) for arm in arms]
    return np.array([[hamming(pc(t), true), hamming(ges(t), true)] for t in tests], dtype=np.float64)


def decisions(tests: Independence, alpha: float = 0.01, most: int = 2) -> tuple[Floats, Floats]:
    """Of all tests given up to `most` variables: whether independence is rejected, and how many are given."""
    found, sizes = [], []
    for size in range(most + 1):
        for given in combinations(range(tests.variables), size):
            left = [v for v in range(tests.variables) if v not in given]
            p = tests.p(given)[np.ix_(left, left)]
            some = p[np.triu_indices(len(left), 1)] < alpha
            found.append(some)
            sizes.append(np.full(len(some), size))
    return np.concatenate(found).astype(np.float64), np.concatenate(sizes).astype(np.float64)
