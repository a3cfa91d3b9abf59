"""Do probabilities mean what they say? Calibration error without its small-sample bias, Brier, log loss and AUROC.

Labels are 0 or 1, scores probabilities that the label is 1 (AUROC takes any numbers). `groups` names the problem that
each item belongs to: intervals then resample problems, because several answers to one problem are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.calibrate.interval import UNKNOWN, Interval
from anystep.calibrate.maps import pooled
from anystep.errors import UsageError
from anystep.language.train.figures import within_auroc
from anystep.process import Floats

RESAMPLES = 1_000
FEWEST = 10  # items a bin of equal mass: there are fewer bins where it would have less
Groups = Sequence[Hashable]


@dataclass(frozen=True)
class Bin:
    """Items whose scores lie between two edges: how many, their mean score, and the share of them that is right."""

    low: float
    high: float
    n: int
    score: float
    right: float


@dataclass(frozen=True)
class Floor:
    """The plug-in calibration error that a perfectly calibrated predictor with the same scores would show by chance."""

    mean: float
    high: float  # its 95% quantile


@dataclass(frozen=True)
class Reliability:
    """How far scores are from probabilities, by bins, and the figures in one place; see the functions of this module.

    ece: the debiased expected calibration error with its interval. plugin: the usual one, biased upward. floor: what
    the usual one would be by chance. miscalibration, discrimination, uncertainty: brier = m - d + u exactly.
    """

    n: int
    bins: tuple[Bin, ...]
    ece: Interval
    plugin: float
    floor: Floor
    brier: Interval
    miscalibration: float
    discrimination: float
    uncertainty: float
    log_loss: Interval
    auroc: Interval

    def __str__(self) -> str:
        lines = [f"{self.n} items: ECE {self.ece} (plug-in {self.plugin:.3f}, by chance {self.floor.mean:.3f}),"]
        lines.append(f"Brier {self.brier}, log loss {self.log_loss}, AUROC {self.auroc}")
        lines += [f"{b.low:6.3f} to {b.high:6.3f} {b.n:7d}  said {b.score:.3f}  right {b.right:.3f}" for b in self.bins]
        return "\n".join(lines)


def reliability(
    scores: ArrayLike,
    labels: ArrayLike,
    bins: int = 15,
    by: Literal["mass", "width"] = "mass",
    groups: Groups | None = None,
    seed: int = 0,
) -> Reliability:
    """All figures of probabilities (n,) in [0, 1] against labels (n,) of 0 and 1; items scored NaN are left out.

    by: bins of equal numbers of items ("mass", of ten at least) or of equal width. Raises UsageError for scores
    outside [0, 1].
    """
    p, y, own = probabilities(scores, labels, groups)
    edges = edges_of(p, bins, by)
    m, d, u = decomposition(p, y)
    return Reliability(
        n=len(p),
        bins=binned(p, y, edges),
        ece=_interval_of_ece(p, y, edges, own, seed),
        plugin=_plugin(p, y, edges),
        floor=_floor(p, edges, seed),
        brier=_mean((p - y) ** 2, own, seed),
        miscalibration=m,
        discrimination=d,
        uncertainty=u,
        log_loss=_mean(-np.log(np.clip(np.where(y > 0, p, 1 - p), 1e-12, 1.0)), own, seed),
        auroc=auroc(p, y, own.tolist(), seed),
    )


def ece(
    scores: ArrayLike,
    labels: ArrayLike,
    bins: int = 15,
    by: Literal["mass", "width"] = "mass",
    groups: Groups | None = None,
    seed: int = 0,
) -> Interval:
    """The expected calibration error of binned scores: the mean over items of |share right - mean score| of their bin.

    The plug-in value is biased upward, because a bin's share right is noisy and the absolute value takes the noise for
    error: here each bin's expected excess under a normal law is taken off, and the interval is the reversed bootstrap
    percentile one, which corrects for the same bias; its low end is 0 where a perfectly calibrated predictor would show
    as much once in twenty times. Still an error of bins: what averages out within a bin is not seen. NaN without items.
    Sources: Naeini, Cooper and Hauskrecht (2015); the debiasing after Kumar, Liang and Ma, "Verified Uncertainty
    Calibration" (2019), in closed form.
    """
    p, y, own = probabilities(scores, labels, groups)
    return _interval_of_ece(p, y, edges_of(p, bins, by), own, seed)


def squared_ce(scores: ArrayLike, labels: ArrayLike, bins: int = 15, by: Literal["mass", "width"] = "mass") -> float:
    """The squared calibration error of binned scores, unbiased given the bins; it may come out below zero.

    Source: Kumar, Liang and Ma (2019): the plug-in less each bin's variance, share (1 - share) / (n - 1). A bin with
    one item has no variance to take off, and is left out.
    """
    p, y, _ = probabilities(scores, labels, None)
    some = [b for b in binned(p, y, edges_of(p, bins, by)) if b.n > 1]
    weight = sum(b.n for b in some)
    if not weight:
        return math.nan
    return sum(b.n * ((b.right - b.score) ** 2 - b.right * (1 - b.right) / (b.n - 1)) for b in some) / weight


def auroc(scores: ArrayLike, labels: ArrayLike, groups: Groups | None = None, seed: int = 0) -> Interval:
    """The probability that a right item has a higher score than a wrong one, ties half; a bootstrap interval.

    NaN without both kinds. Scores are any numbers; NaN is left out.
    """
    x, y, own = checked(scores, labels, groups)
    value = within_auroc(y, x)
    if math.isnan(value):
        return UNKNOWN
    order = np.argsort(x, kind="stable")
    tie = np.unique(x[order], return_inverse=True)[1]
    right, wrong = y[order], 1 - y[order]
    first = np.flatnonzero(np.diff(tie, prepend=-1))

    def of(weights: Floats) -> Floats:
        """(resamples, n) -> (resamples,): right weight times wrong weight below it, and half of that beside it."""
        w = weights[:, order]
        good, bad = np.add.reduceat(w * right, first, axis=1), np.add.reduceat(w * wrong, first, axis=1)
        below = np.cumsum(bad, axis=1) - bad / 2
        pairs = good.sum(1) * bad.sum(1)
        return np.divide((good * below).sum(1), pairs, out=np.full(len(w), np.nan), where=pairs > 0)

    return _bootstrapped(value, of, own, seed)


def auroc_within(scores: ArrayLike, labels: ArrayLike, groups: Groups, seed: int = 0) -> Interval:
    """The mean over problems of the AUROC among a problem's own items, over problems that have both kinds: what
    choosing among answers to one problem needs. The interval is bootstrapped over problems."""
    x, y, own = checked(scores, labels, groups)
    each = np.array([within_auroc(y[own == g], x[own == g]) for g in range(int(own.max(initial=-1)) + 1)])
    each = each[~np.isnan(each)]
    return _mean(each, np.arange(len(each)), seed) if len(each) else UNKNOWN


def decomposition(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float, float]:
    """The Brier score as miscalibration - discrimination + uncertainty, exactly and without bins.

    Miscalibration is what isotonic recalibration on these very items would gain, discrimination how much better the
    recalibrated scores are than saying the base rate always, uncertainty the base rate's own score.
    Source: Dimitriadis, Gneiting and Jordan, "Stable reliability diagrams for probabilistic classifiers" (2021).
    """
    p, y, _ = probabilities(scores, labels, None)
    if not len(p):
        return math.nan, math.nan, math.nan
    values, at = np.unique(p, return_inverse=True)
    best = pooled(values, np.bincount(at, y) / np.bincount(at), np.bincount(at).astype(float))[at]
    brier, ideal = float(np.mean((p - y) ** 2)), float(np.mean((best - y) ** 2))
    base = float(y.mean() * (1 - y.mean()))
    return brier - ideal, base - ideal, base


def binned(p: Floats, y: Floats, edges: Floats) -> tuple[Bin, ...]:
    """The bins that have items."""
    place, k = _places(p, edges), len(edges) - 1
    n, said, right = (np.bincount(place, w, k) for w in (np.ones(len(p)), p, y))
    return tuple(
        Bin(float(edges[i]), float(edges[i + 1]), int(n[i]), float(said[i] / n[i]), float(right[i] / n[i]))
        for i in range(k)
        if n[i]
    )


def edges_of(p: Floats, bins: int, by: str) -> Floats:
    """Bin edges (k + 1,) from 0 to 1: at quantiles of the scores, equal ones together, or evenly spaced."""
    if by not in ("mass", "width") or bins < 1:
        raise UsageError(f"bins={bins!r}, by={by!r}: call reliability(scores, labels, bins=15, by='mass'), or 'width'.")
    if by == "width" or not len(p):
        return np.linspace(0.0, 1.0, bins + 1)
    bins = min(bins, max(1, len(p) // FEWEST))
    inner = np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.concatenate([[0.0], np.unique(inner[(inner > 0) & (inner < 1)]), [1.0]])


def checked(scores: ArrayLike, labels: ArrayLike, groups: Groups | None) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Scores, labels and the number of each item's group, without the items that have no score."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or (groups is not None and len(groups) != len(x)):
        raise UsageError(f"{x.shape} scores and {y.shape} labels: give one label, 0 or 1, and one group a score.")
    if not np.isin(y, (0.0, 1.0)).all():
        raise UsageError(f"labels are 0 or 1, wrong or right; got {y[~np.isin(y, (0.0, 1.0))][0]}.")
    known: dict[Hashable, int] = {}
    own = range(len(x)) if groups is None else [known.setdefault(g, len(known)) for g in groups]
    there = ~np.isnan(x)
    return x[there], y[there], np.array(own, dtype=np.int64)[there]


def probabilities(
    scores: ArrayLike, labels: ArrayLike, groups: Groups | None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """As `checked`; UsageError where a score is no probability."""
    p, y, own = checked(scores, labels, groups)
    if len(p) and (p.min() < 0 or p.max() > 1):
        raise UsageError(
            f"scores from {p.min():g} to {p.max():g} are no probabilities; map them: calibrate.platt(scores, labels)."
        )
    return p, y, own


def _places(p: Floats, edges: Floats) -> NDArray[np.int64]:
    """The bin of each item: (low, high], the first one with its low end."""
    return np.searchsorted(edges[1:-1], p, side="left")


def _gaps(rest: Floats, p: Floats, edges: Floats) -> Floats:
    """Of `rest` (resamples, n), label less score by weight: the bins' absolute sums, summed, (resamples,)."""
    inside = np.zeros((len(p), len(edges) - 1))
    inside[np.arange(len(p)), _places(p, edges)] = 1.0
    return np.asarray(np.abs(rest @ inside).sum(1))


def _plugin(p: Floats, y: Floats, edges: Floats) -> float:
    return float(_gaps((y - p)[None], p, edges)[0] / len(p)) if len(p) else math.nan


def _debiased(p: Floats, y: Floats, edges: Floats) -> float:
    total = 0.0
    for b in binned(p, y, edges):
        gap, noise = abs(b.right - b.score), math.sqrt(b.right * (1 - b.right) / b.n)
        expected = gap
        if noise > 0:
            z = gap / noise
            expected = noise * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + gap * math.erf(z / math.sqrt(2))
        total += b.n * (2 * gap - expected)
    return max(0.0, total / len(p))


def _interval_of_ece(p: Floats, y: Floats, edges: Floats, own: NDArray[np.int64], seed: int) -> Interval:
    if not len(p):
        return UNKNOWN
    plugin, value = _plugin(p, y, edges), _debiased(p, y, edges)
    drawn = _bootstrapped(plugin, lambda w: _gaps(w * (y - p), p, edges) / w.sum(1), own, seed)
    low, high = max(0.0, 2 * plugin - drawn.high), max(0.0, 2 * plugin - drawn.low)
    low = 0.0 if plugin <= _floor(p, edges, seed).high else low
    return Interval(value, min(low, value), max(high, value))


def _floor(p: Floats, edges: Floats, seed: int) -> Floor:
    if not len(p):
        return Floor(math.nan, math.nan)
    right = np.random.default_rng(seed).random((RESAMPLES // 5, len(p))) < p
    found = _gaps(right - p, p, edges) / len(p)
    return Floor(float(np.mean(found)), float(np.quantile(found, 0.95)))


def _mean(x: Floats, own: NDArray[np.int64], seed: int) -> Interval:
    """The mean over items and its bootstrap interval over groups."""
    if not len(x):
        return UNKNOWN
    return _bootstrapped(float(x.mean()), lambda w: np.asarray(w @ x / w.sum(1)), own, seed)


def _bootstrapped(value: float, of: Callable[[Floats], Floats], own: NDArray[np.int64], seed: int) -> Interval:
    """`value` with percentile ends of `of` at weights (resamples, n): how often each item's group was drawn."""
    groups, at = np.unique(own, return_inverse=True)
    rng, found, k = np.random.default_rng(seed), list[Floats](), len(groups)
    block = max(1, 2_000_000 // max(len(own), k))
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        drawn = rng.integers(0, k, (rows, k)) + k * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * k).reshape(rows, k)
        found.append(of(times[:, at].astype(np.float64)))
    every = np.concatenate(found)
    low, high = np.nanquantile(every, [0.025, 0.975])
    return Interval(value, float(low), float(high))
