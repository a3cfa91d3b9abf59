"""Calibration figures against closed forms, scipy, and predictors whose calibration error is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from anystep.calibrate import auroc, auroc_within, decomposition, ece, reliability, squared_ce
from anystep.calibrate.reliability import binned, edges_of
from anystep.errors import UsageError

ITEMS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=2, max_size=60)


@given(items=ITEMS)
def test_auroc_is_mann_whitney_s_statistic_ties_and_all(items: list[tuple[int, int]]) -> None:
    x, y = np.array(items).T
    found = auroc(x / 7, y).value
    if 0 < y.sum() < len(y):
        theirs = mannwhitneyu(x[y == 1], x[y == 0]).statistic / (y.sum() * (len(y) - y.sum()))
        assert found == pytest.approx(theirs, abs=1e-12)
    else:
        assert math.isnan(found)


@given(items=ITEMS)
def test_brier_s_parts_sum_to_it_and_none_is_negative(items: list[tuple[int, int]]) -> None:
    x, y = np.array(items).T
    p = x / 20
    m, d, u = decomposition(p, y)
    assert m - d + u == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    assert min(m, d, u) >= -1e-12


def test_brier_s_parts_of_a_forecast_with_two_values() -> None:
    """Saying .2 of ten items, of which 3 are right, and .9 of ten, of which 8 are: by hand."""
    p, y = np.repeat([0.2, 0.9], 10), np.array([1] * 3 + [0] * 7 + [1] * 8 + [0] * 2)
    m, d, u = decomposition(p, y)
    assert m == pytest.approx(((0.2 - 0.3) ** 2 + (0.9 - 0.8) ** 2) / 2)
    assert d == pytest.approx(((0.3 - 0.55) ** 2 + (0.8 - 0.55) ** 2) / 2)
    assert u == pytest.approx(0.55 * 0.45)
    found = reliability(p, y, bins=2, by="width")
    assert found.plugin == pytest.approx(0.1)
    assert [(b.n, round(b.score, 3), b.right) for b in found.bins] == [(10, 0.2, 0.3), (10, 0.9, 0.8)]
    expected = -(3 * math.log(0.2) + 7 * math.log(0.8) + 8 * math.log(0.9) + 2 * math.log(0.1)) / 20
    assert found.log_loss.value == pytest.approx(expected)


@given(items=ITEMS, bins=st.integers(1, 12), by=st.sampled_from(["mass", "width"]))
def test_bins_hold_every_item_once_between_their_edges(items: list[tuple[int, int]], bins: int, by: str) -> None:
    x, y = np.array(items).T
    p = x / 20
    edges = edges_of(p, bins, by)
    found = binned(p, y.astype(float), edges)
    assert sum(b.n for b in found) == len(p) and edges[0] == 0 and edges[-1] == 1 and (np.diff(edges) > 0).all()
    assert all(b.low <= b.score <= b.high for b in found)
    assert sum(b.n * b.right for b in found) == pytest.approx(y.sum())


def test_bins_of_equal_mass_hold_as_many_items_each() -> None:
    p = np.random.default_rng(0).random(1_000) ** 3
    assert {b.n for b in binned(p, p, edges_of(p, 10, "mass"))} == {100}


def _drawn(power: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are even, and labels right with probability score ** power."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return p, (rng.random(n) < p**power).astype(float)


def _truth(power: float, bins: int) -> float:
    edges = np.linspace(0, 1, bins + 1)
    whole = edges**2 / 2 - edges ** (power + 1) / (power + 1)
    return float(np.abs(np.diff(whole)).sum())


def test_the_debiased_error_is_nearer_the_truth_than_the_plug_in_and_its_interval_holds_it() -> None:
    """200 draws of 400 items whose error of ten bins is .065 by integration; at least 84% of the intervals hold it."""
    truth, drawn = _truth(1.3, 10), [_drawn(1.3, 400, seed) for seed in range(200)]
    found = [ece(p, y, bins=10, by="width", seed=s) for s, (p, y) in enumerate(drawn)]
    plugin = [sum(b.n * abs(b.right - b.score) for b in binned(p, y, np.linspace(0, 1, 11))) / 400 for p, y in drawn]
    assert abs(np.mean([f.value for f in found]) - truth) < 0.5 * abs(np.mean(plugin) - truth)
    assert np.mean([f.low <= truth <= f.high for f in found]) >= 0.84


def test_a_calibrated_predictor_is_not_called_miscalibrated_more_than_one_time_in_twenty() -> None:
    """200 draws: at most 10% have an interval above zero (5% expected, five standard errors are 7.7 points)."""
    found = [ece(*_drawn(1.0, 300, seed), bins=10, seed=seed) for seed in range(200)]
    assert np.mean([f.low > 0 for f in found]) <= 0.1
    one = reliability(*_drawn(1.0, 300, 0), bins=10)
    assert one.floor.mean == pytest.approx(
        np.mean([reliability(*_drawn(1.0, 300, s), bins=10).plugin for s in range(40)]), rel=0.2
    )


def test_the_squared_error_is_unbiased() -> None:
    """Over 2,000 draws of a forecast with two values its mean is the true .01, to five standard errors."""
    rng = np.random.default_rng(1)
    p = np.repeat([0.2, 0.9], 20)
    found = [squared_ce(p, rng.random(40) < np.repeat([0.3, 0.8], 20), bins=2, by="width") for _ in range(2_000)]
    assert abs(np.mean(found) - 0.01) < 5 * np.std(found) / math.sqrt(2_000)


def test_intervals_resample_problems_where_they_are_named() -> None:
    """Ten copies of each item tell nothing new: naming the problem leaves the interval as wide as without copies."""
    p, y = _drawn(1.0, 150, 3)
    alone = auroc(p, y)
    copies = auroc(np.tile(p, 10), np.tile(y, 10), groups=list(range(150)) * 10)
    naive = auroc(np.tile(p, 10), np.tile(y, 10))
    assert copies.value == pytest.approx(alone.value)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert naive.high - naive.low < 0.5 * (alone.high - alone.low)


def test_an_auroc_s_interval_has_the_width_of_hanley_and_mcneil_s() -> None:
    p, y = _drawn(1.0, 600, 4)
    found, good = auroc(p, y), y.sum()
    a, bad = found.value, len(y) - y.sum()
    spread = a * (1 - a) + (good - 1) * (a / (2 - a) - a * a) + (bad - 1) * (2 * a * a / (1 + a) - a * a)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(spread / (good * bad)), rel=0.25)


def test_within_a_problem_only_its_own_items_are_compared() -> None:
    scores, labels = [0.9, 0.8, 0.2, 0.1, 0.5], [1, 0, 1, 0, 1]
    assert auroc_within(scores, labels, ["a", "a", "b", "b", "c"]).value == 1.0
    assert auroc(scores, labels).value == pytest.approx(4 / 6)


def test_what_is_no_label_or_no_probability_is_refused_and_nan_is_left_out() -> None:
    with pytest.raises(UsageError, match="labels are 0 or 1"):
        ece([0.5, 0.5], [0, 2])
    with pytest.raises(UsageError, match="no probabilities; map them: calibrate.platt"):
        ece([0.5, 1.5], [0, 1])
    with pytest.raises(UsageError, match="one label, 0 or 1, and one group a score"):
        auroc([0.5, 0.5], [0])
    with pytest.raises(UsageError, match="by='mass'"):
        ece([0.5, 0.5], [0, 1], by="size")  # type: ignore[arg-type]
    with_gap = reliability([0.5, math.nan, 0.25], [1, 1, 0])
    assert with_gap.n == 2 and math.isnan(ece([], []).value)
