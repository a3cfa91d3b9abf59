"""Where to draw the line? A threshold that keeps the false-positive rate below a wanted one, and how certainly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anystep.calibrate.interval import Interval, wilson
from anystep.calibrate.reliability import checked
from anystep.errors import UsageError


@dataclass(frozen=True)
class Threshold:
    """Pass what scores `value` or more. With probability `certainty` over the labelled wrong ones that it was chosen
    by, at most a share `fpr` of further wrong ones, drawn as those were, passes.

    wrong: how many it was chosen by. passes: the share of the labelled right ones that it lets through.
    """

    value: float
    fpr: float
    certainty: float
    wrong: int
    passes: Interval


def threshold_for(fpr: float, scores: ArrayLike, labels: ArrayLike, certainty: float = 0.95) -> Threshold:
    """The lowest threshold whose false-positive rate is at most `fpr`, guaranteed in finite samples.

    scores (n,) of states with labels (n,), 1 right, 0 wrong. The threshold lies just above the k-th lowest score of the
    m wrong ones, k the least with P(Binomial(m, fpr) <= m - k) <= 1 - certainty: the rate above an order statistic is
    Beta distributed, so this holds for any law of the scores, with ties too (then more strictly). It asks that wrong
    ones be independent and drawn as later ones will be: one a problem, and no search that picks the high ones.
    Raises UsageError where even the highest score gives no such certainty: log(1 - certainty) / log(1 - fpr) wrong
    ones are needed, 59 for 5% at 95%.
    Source: Tong, Feng and Li, "Neyman-Pearson classification algorithms and NP receiver operating characteristics"
    (2018).
    """
    for name, share in (("fpr", fpr), ("certainty", certainty)):
        if not 0 < share < 1:
            raise UsageError(f"{name}={share!r} is not between 0 and 1; call threshold_for(0.05, scores, labels).")
    x, y, _ = checked(scores, labels, None)
    bad, good = np.sort(x[y == 0]), x[y > 0]
    m = len(bad)
    above = _most(m, fpr, 1 - certainty)
    if above is None:
        need = math.ceil(math.log(1 - certainty) / math.log(1 - fpr))
        raise UsageError(
            f"threshold_for(fpr={fpr:g}, certainty={certainty:g}) needs {need} wrong ones and has {m}: label more, or "
            "ask for a higher rate."
        )
    value = float(np.nextafter(bad[m - 1 - above], np.inf))
    return Threshold(value, fpr, certainty, m, wilson(int((good >= value).sum()), len(good)))


def _most(m: int, fpr: float, risk: float) -> int | None:
    """How many of m wrong ones may lie above the threshold: the largest j with P(Binomial(m, fpr) <= j) <= risk."""
    whole, best = 0.0, None
    for j in range(m + 1):
        whole += math.exp(
            math.lgamma(m + 1)
            - math.lgamma(j + 1)
            - math.lgamma(m - j + 1)
            + j * math.log(fpr)
            + (m - j) * math.log1p(-fpr)
        )
        if whole > risk:
            break
        best = j
    return best
