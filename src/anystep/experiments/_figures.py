"""What the experiments share: figures with intervals as checks, and plain tables for their notes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from anystep.calibrate.interval import UNKNOWN, Interval, paired_difference
from anystep.experiments.check import Check
from anystep.process import Floats


def held(clause: str, figure: Interval, op: str, bound: float) -> Check:
    """A check of a figure that has an interval; without one (too few items) the value is NaN and fails."""
    known = not math.isnan(figure.low)
    return Check(clause, figure.value, op, bound, (figure.low, figure.high) if known else None)


def paired(ours: Floats, theirs: Floats) -> Interval:
    """Mean of ours minus theirs over items, each (items,) or (items, runs), bootstrapped over items."""
    return paired_difference(list(ours), list(theirs))


def ratio(ours: Floats, theirs: Floats, seed: int = 0) -> Interval:
    """Mean of ours over mean of theirs, bootstrapped over items."""
    if len(ours) < 2:
        return UNKNOWN
    at = np.random.default_rng(seed).integers(0, len(ours), (4_000, len(ours)))
    low, high = np.quantile(ours[at].mean(1) / theirs[at].mean(1), [0.025, 0.975])
    return Interval(float(ours.mean() / theirs.mean()), float(low), float(high))


def unbiased(clause: str, estimates: ArrayLike, truth: float, bound: float = 5.0) -> Check:
    """How many standard errors the mean of independent estimates (n,) lies from the truth; must stay below `bound`."""
    x = np.asarray(estimates, dtype=np.float64)
    z = (x.mean() - truth) / (x.std(ddof=1) / math.sqrt(len(x)))
    return Check(f"{clause} (|z| over {len(x):,} runs; mean {x.mean():.5f}, truth {truth:.5f})", abs(z), "<", bound)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table that lines up as plain text too; numbers with three digits behind the point."""
    cells = [list(head), *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells]
    lines.insert(1, ["-" * w for w in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
