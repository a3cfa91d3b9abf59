"""Exact figures of a pool of samples: what k draws from it would give, and how well scores rank it."""

from __future__ import annotations

import math

import numpy as np


def pass_at(right: np.ndarray, k: int) -> float:
    """Unbiased chance that k draws without replacement hold a right one (Chen et al., 2021)."""
    n, wrong = len(right), int(len(right) - right.sum())
    return 1.0 - math.comb(wrong, k) / math.comb(n, k)


def best_of(right: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Exact chance that the best scored of k draws without replacement is right; ties go to the earlier sample."""
    return float(np.dot(chosen(scores, k), right))


def chosen(scores: np.ndarray, k: int) -> np.ndarray:
    """Exact chance of each sample that it is the best scored of k draws; ties go to the earlier sample."""
    n = len(scores)
    chance = np.empty(n)
    chance[np.argsort(-scores, kind="stable")] = [math.comb(n - 1 - i, k - 1) / math.comb(n, k) for i in range(n)]
    return chance


def within_auroc(right: np.ndarray, scores: np.ndarray) -> float:
    """Share of right/wrong pairs ranked rightly, ties half; NaN without both. Memory grows with n, not with pairs."""
    good, bad = scores[right > 0], np.sort(scores[right == 0])
    if not len(good) or not len(bad):
        return math.nan
    below, upto = np.searchsorted(bad, good, side="left"), np.searchsorted(bad, good, side="right")
    return float((below + upto).sum() / (2 * len(good) * len(bad)))
