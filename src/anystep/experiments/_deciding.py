"""Decisions on recorded pools: how often each is right, what it says of itself, and the baselines beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anystep.calibrate.interval import Interval
from anystep.calibrate.reliability import binned, ece
from anystep.experiments._figures import paired
from anystep.population import Decision, Population, Verdict
from anystep.process import Floats
from anystep.search.pools import Pool

ORACLE = "oracle"  # the label under which a pool keeps whether each sample is right
BINS = 10  # of equal width, as the paper's


@dataclass(frozen=True)
class Decided:
    """One decision on sub-pools of n samples of every problem: whether what it gave was right, and how sure it said to
    be (its confidence, else its support; NaN for neither), both (items, times)."""

    right: Floats
    said: Floats

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def each(self) -> Floats:
        """(items,) mean over sub-pools."""
        return np.asarray(self.right.mean(1))

    def over(self, other: Decided) -> Interval:
        """Accuracy minus another's, bootstrapped over problems."""
        return paired(self.each, other.each)

    def ece(self, seed: int = 0) -> Interval:
        """The debiased calibration error in ten bins of equal width, its interval by problems."""
        return ece(self.said.ravel(), self.right.ravel(), BINS, "width", groups=self._groups(), seed=seed)

    def _groups(self) -> list[int]:
        return np.repeat(np.arange(len(self.right)), self.right.shape[1]).tolist()


def decided(
    pools: Sequence[Pool], decision: Decision, n: int, times: int, seed: int = 0, scores: str | None = None
) -> Decided:
    """`decision` on `times` sub-pools of n samples of each pool; right where any row it submits is right."""
    right, said = np.zeros((len(pools), times)), np.full((len(pools), times), np.nan)
    for i, pool in enumerate(pools):
        whole, oracle = pool.population(scores=scores), np.nan_to_num(pool.scores(ORACLE))
        for j, rows in enumerate(pool.subsets(n, times, seed)):
            verdict = decision(whole.take(rows))
            given = rows[list(verdict.submitted or (() if verdict.row is None else (verdict.row,)))]
            right[i, j] = float(oracle[given].max(initial=0.0))
            sure = verdict.support if verdict.confidence is None else verdict.confidence
            said[i, j] = np.nan if sure is None else sure
    return Decided(right, said)


def ece_difference(ours: Decided, theirs: Decided, seed: int = 0, resamples: int = 500) -> Interval:
    """Our calibration error minus theirs (both debiased), with a percentile interval over problems of the usual one."""
    rng = np.random.default_rng(seed)
    at = rng.integers(0, len(ours.right), (resamples, len(ours.right)))
    gaps = [_plain(ours.said[rows], ours.right[rows]) - _plain(theirs.said[rows], theirs.right[rows]) for rows in at]
    low, high = np.quantile(gaps, [0.025, 0.975])
    value = ours.ece().value - theirs.ece().value
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _plain(said: Floats, right: Floats) -> float:
    bins = binned(said.ravel(), right.ravel(), np.linspace(0, 1, BINS + 1))
    return sum(b.n * abs(b.right - b.score) for b in bins) / right.size


def at_most(pools: Sequence[Pool], decision: Decision, target: float, ns: Sequence[int], times: int, seed: int) -> int:
    """The smallest n at which the decision's mean accuracy is at least `target`; twice the largest where none is."""
    return next((n for n in ns if decided(pools, decision, n, times, seed).accuracy >= target), 2 * ns[-1])


def likeliest(population: Population) -> Verdict:
    """Perplexity alone: the most probable single path, whose probability is what it says of itself."""
    logp = np.where(population.done, population.logp, -np.inf)
    answers = population.answers or ()
    logp = np.where([a is not None for a in answers], logp, -np.inf)
    if not np.isfinite(logp).any():
        return Verdict(int(np.argmax(population.done)) if population.done.any() else None)
    row = int(np.argmax(logp))
    return Verdict(row, min(1.0, float(np.exp(logp[row]))))


perplexity = Decision("perplexity", likeliest, mass=True)

Make = Callable[[], Decision]
