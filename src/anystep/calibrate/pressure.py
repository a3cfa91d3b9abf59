"""What becomes of a verdict when a search chooses by it? The best of n is where a verifier's errors gather."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anystep.calibrate.interval import UNKNOWN, Interval
from anystep.calibrate.maps import Map
from anystep.errors import UsageError
from anystep.language.train.figures import chosen
from anystep.process import Floats

SIZES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Pressure:
    """The sample with the highest score among n, over problems.

    says: its mean score, or probability where a map was given. right: how often it is right. excess: says less right.
    false_positives: the share of wrong winners that pass the threshold; passing: the share of all winners that do;
    wrong_passing: the share of those that are wrong.
    """

    n: int
    says: Interval
    right: Interval
    excess: Interval
    false_positives: Interval
    passing: Interval
    wrong_passing: Interval

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pressure(
    scores: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    threshold: float = 0.5,
    sizes: Sequence[int] = SIZES,
    map: Map | None = None,
    seed: int = 0,
) -> tuple[Pressure, ...]:
    """How the winner of best-of-n fares at each n of `sizes`, from recorded samples of each problem.

    scores and labels: for each problem the scores of its samples and whether each is right, (samples,) with as many as
    the largest n. Exact over all draws of n samples without replacement, ties going to the earlier one; intervals
    are bootstrapped over problems. threshold: in the score's own units. map: turns a score into a probability.
    """
    x, y = ([np.asarray(one, dtype=np.float64) for one in each] for each in (scores, labels))
    if not x or len(x) != len(y) or any(a.shape != b.shape or len(a) < max(sizes) for a, b in zip(x, y, strict=True)):
        raise UsageError(
            f"pressure(sizes={tuple(sizes)}): give scores and labels of at least {max(sizes)} samples of each problem."
        )
    found = []
    for n in sizes:
        rows = []
        for score, label in zip(x, y, strict=True):
            chance, passes = chosen(score, n), score >= threshold
            said = score if map is None else map(score)
            wrong = 1 - label
            rows.append([chance @ v for v in (said, label, wrong, wrong * passes, passes)])
        found.append(_pressed(n, np.array(rows), seed))
    return tuple(found)


def _pressed(n: int, each: Floats, seed: int) -> Pressure:
    """each: (problems, 5) of what the winner says, its chances to be right, wrong, wrong and passed, and passed."""
    says, right, wrong, wrong_passed, passed = range(5)
    drawn = each[np.random.default_rng(seed).integers(0, len(each), (2_000, len(each)))].mean(1)

    def over(of: Callable[[Floats], Floats]) -> Interval:
        with np.errstate(invalid="ignore", divide="ignore"):
            value, every = float(of(each.mean(0)[None])[0]), of(drawn)
        every = every[~np.isnan(every)]
        return Interval(value, *map(float, np.quantile(every, [0.025, 0.975]))) if len(every) else UNKNOWN

    return Pressure(
        n,
        says=over(lambda m: m[:, says]),
        right=over(lambda m: m[:, right]),
        excess=over(lambda m: m[:, says] - m[:, right]),
        false_positives=over(lambda m: m[:, wrong_passed] / m[:, wrong]),
        passing=over(lambda m: m[:, passed]),
        wrong_passing=over(lambda m: m[:, wrong_passed] / m[:, passed]),
    )
