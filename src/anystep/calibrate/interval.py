"""How sure is an accuracy? 95% intervals for a share, for a mean over items, and for a paired difference.

The unit that is drawn independently is the item: several runs of one item are averaged first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from anystep.errors import UsageError
from anystep.process import Floats

RESAMPLES = 4_000


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its confidence interval; all NaN where nothing was measured."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a share of n independent trials; the value is the share itself.

    Its ends stay inside [0, 1] and it has a width even where all or none succeed. Raises UsageError unless
    0 <= successes <= n. Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927).
    """
    if not 0 <= successes <= n:
        raise UsageError(f"wilson(successes={successes}, n={n}): call wilson(successes=7, n=10), with 0 <= 7 <= 10.")
    if n == 0:
        return UNKNOWN
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else middle - half  # exactly, where rounding would leave 1e-18
    high = 1.0 if successes == n else middle + half
    return Interval(share, low, high)


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of items (n,) and its percentile bootstrap interval over items; NaN items are left out.

    With few items the interval is too short (at 10 items its coverage is nearer 90% than 95%). Repeatable for a seed.
    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    if len(x) == 0:
        return UNKNOWN
    rng = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(x))  # resamples at a time, so that many items need little memory
    sizes = [min(block, RESAMPLES - at) for at in range(0, RESAMPLES, block)]
    means = np.concatenate([x[rng.integers(0, len(x), (size, len(x)))].mean(1) for size in sizes])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(x.mean()), float(low), float(high))


def level(scores: Sequence[ArrayLike], confidence: float = 0.95) -> Interval:
    """The mean score of items, each given by the scores of its runs, NaN where unscored.

    Wilson's interval where every item has one score and all are 0 or 1, else the bootstrap over items' means.
    """
    runs = [_scored(item) for item in scores]
    runs = [item for item in runs if len(item)]
    single = all(len(item) == 1 and item[0] in (0.0, 1.0) for item in runs)
    if runs and single:
        return wilson(int(sum(item[0] for item in runs)), len(runs), confidence)
    return bootstrap_mean([item.mean() for item in runs], confidence)


def paired_difference(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike], confidence: float = 0.95) -> Interval:
    """Mean of ours minus theirs over the items that both have a score of: the same items, in the same order.

    Bootstrapped over items, so what an item's difficulty adds to both cancels.
    """
    pairs = [(_scored(a), _scored(b)) for a, b in zip(ours, theirs, strict=True)]
    return bootstrap_mean([a.mean() - b.mean() for a, b in pairs if len(a) and len(b)], confidence)


def _scored(scores: ArrayLike) -> Floats:
    x = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    return np.asarray(x[~np.isnan(x)])
