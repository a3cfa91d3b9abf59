"""The threshold's guarantee against its exact law, and by simulation on scores of any kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from anystep.calibrate import threshold_for, wilson
from anystep.errors import UsageError


def test_the_order_statistic_is_the_one_that_the_binomial_law_gives() -> None:
    for m in (59, 60, 92, 93, 200, 1_000):
        scores, labels = np.arange(m + 5, dtype=float), [0] * m + [1] * 5
        found = threshold_for(0.05, scores, labels)
        above = int((scores[:m] >= found.value).sum())
        assert binom.cdf(above, m, 0.05) <= 0.05 < binom.cdf(above + 1, m, 0.05)
        assert found.passes == wilson(5, 5) and found.wrong == m


@pytest.mark.parametrize("fpr", [0.02, 0.1])
@pytest.mark.parametrize("tied", [False, True])
def test_the_rate_is_exceeded_no_more_often_than_allowed(fpr: float, tied: bool) -> None:
    """4,000 draws of 300 wrong ones from a normal law; the true rate is known. Ties only make it stricter."""
    rng, over = np.random.default_rng(0), 0
    for _ in range(4_000):
        bad = rng.normal(size=300)
        bad = np.round(bad, 1) if tied else bad
        t = threshold_for(fpr, np.append(bad, 9.0), [0] * 300 + [1], certainty=0.9).value
        rate = norm.sf(round(t, 1) + 0.05) if tied else norm.sf(t)  # what is rounded to above t
        over += rate > fpr
    assert over / 4_000 <= 0.1 + 5 * math.sqrt(0.1 * 0.9 / 4_000)
    if not tied:  # and it is not needlessly strict: the next lower score would break the promise
        assert over / 4_000 >= 0.01


def test_too_few_wrong_ones_are_refused_with_how_many_are_needed() -> None:
    labels = [0] * 58 + [1] * 10
    with pytest.raises(UsageError, match="needs 59 wrong ones and has 58"):
        threshold_for(0.05, np.arange(68.0), labels)
    one_more = threshold_for(0.05, np.arange(69.0), [0] * 59 + [1] * 10)
    assert one_more.value == np.nextafter(58.0, np.inf) and one_more.passes.value == 1.0
    with pytest.raises(UsageError, match=r"fpr=0 is not between 0 and 1; call threshold_for\(0.05"):
        threshold_for(0, np.arange(68.0), labels)
