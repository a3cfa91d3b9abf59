"""How good are k independent runs of a problem: on average, by majority, all of them, any of them?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from anystep.bench.report import Report
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.errors import UsageError


@dataclass(frozen=True)
class Repeated:
    """Four readings of the same k runs of every problem, with their bootstrap intervals over problems.

    average: AVG@k, the mean share of right runs. majority: the share of problems of which more than half of the runs
    that gave an answer are right. all, any: the share of problems with all runs right, and with any right.
    """

    k: int
    average: Interval
    majority: Interval
    all: Interval
    any: Interval

    def __str__(self) -> str:
        names = ("average", "majority", "all", "any")
        return ", ".join(f"{name}@{self.k} {getattr(self, name)}" for name in names)


def repeated(right: Sequence[Sequence[float]]) -> Repeated:
    """The four readings of runs given as (problems, k): 1 right, 0 wrong, NaN for a run that gave no answer.

    A run without an answer is a wrong one, but has no vote in the majority; where no run has one, that is wrong too.
    UsageError where there are no problems, or they have different numbers of runs.
    Source of the metrics: the average and the strict majority are those of SimpleBench's own scorer.
    """
    sizes = {len(runs) for runs in right}
    if len(sizes) != 1 or sizes == {0}:
        raise UsageError(
            f"repeated(right) with {sorted(sizes)} runs a problem: give as many for each, [[1, 0, 1], [0, 0, 1]]."
        )
    scores = [[0.0 if math.isnan(r) else float(r == 1) for r in runs] for runs in right]
    said = [sum(not math.isnan(r) for r in runs) for runs in right]
    return Repeated(
        sizes.pop(),
        bootstrap_mean([sum(runs) / len(runs) for runs in scores]),
        bootstrap_mean([float(2 * sum(runs) > votes) for runs, votes in zip(scores, said, strict=True)]),
        bootstrap_mean([min(runs) for runs in scores]),
        bootstrap_mean([max(runs) for runs in scores]),
    )


def runs_of(report: Report, label: str, n: int = 1) -> list[list[float]]:
    """Whether each seed's run of a method was right, problem by problem, as `repeated` takes it.

    `anystep compare --seed 0 --seed 1 ... --store FILE` makes and keeps them. UsageError where there are none.
    """
    trials = [t for t in report.trials if t.label == label and t.n == n]
    if not trials:
        known = ", ".join(dict.fromkeys(f"{t.label} at n={t.n}" for t in report.trials))
        raise UsageError(f"runs_of(report, {label!r}, n={n}): no such runs; there are {known or 'none'}.")
    found: dict[str, list[float]] = {}
    for t in trials:
        found.setdefault(t.item, []).append(math.nan if t.answer is None else t.score)
    return list(found.values())
