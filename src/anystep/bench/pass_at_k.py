"""How often is one of k samples right? The unbiased estimate from n samples a problem, n at least k."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from anystep.bench.report import Report
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.errors import UsageError

Counts = tuple[int, int]  # samples of a problem, and how many of them are right


def pass_at(n: int, right: int, k: int) -> float:
    """The probability that of k samples drawn from n without replacement, `right` of them right, one is right.

    It is 1 - C(n - right, k) / C(n, k), the unbiased estimate of pass@k from n independent samples of one problem;
    taking 1 - (1 - right / n)^k instead is biased low. Computed as a product of shares, which no n overflows.
    UsageError unless 0 <= right <= n and 1 <= k <= n.
    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2021), arXiv 2107.03374.
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise UsageError(f"pass_at(n={n}, right={right}, k={k}): call pass_at(n=10, right=3, k=5), with k at most n.")
    if n - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - right + 1, n + 1))


def pass_at_k(counts: Iterable[Counts], k: int, confidence: float = 0.95) -> Interval:
    """The mean of `pass_at` over problems, each given as (samples, right ones), with its bootstrap interval over them.

    The problem is the unit: more samples of the same problems narrow each one's estimate, not the interval's share
    that comes from the choice of problems. UsageError where a problem has fewer than k samples.
    """
    return bootstrap_mean([pass_at(n, right, k) for n, right in counts], confidence)


def sampled(report: Report, label: str = "self_consistency") -> list[Counts]:
    """Each problem's samples in a comparison, and how many were right: the runs of `label` at n=1, one a seed.

    `anystep compare --ns 1 --seed 0 --seed 1 ...` makes them. A run that could not be scored is left out; right is a
    score of 1. UsageError where the report has no such runs, or they are greedy and so all one sample.
    """
    trials = [t for t in report.trials if t.label == label and t.n == 1 and not math.isnan(t.score)]
    if not trials or label == report.greedy:
        known = ", ".join(dict.fromkeys(t.label for t in report.trials if t.n == 1 and t.label != report.greedy))
        raise UsageError(
            f"sampled(report, {label!r}): no sampled runs at n=1 of that name; there are {known or 'none'}."
        )
    found: dict[str, list[float]] = {}
    for trial in trials:
        found.setdefault(trial.item, []).append(trial.score)
    return [_counted(scores) for scores in found.values()]


def _counted(scores: Sequence[float]) -> Counts:
    return len(scores), sum(score == 1.0 for score in scores)
