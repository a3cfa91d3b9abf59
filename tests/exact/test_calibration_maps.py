"""Maps from scores to probabilities: against known laws, another optimiser, and their own inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize

from anystep.calibrate import beta, ece, isotonic, map_of, platt, temperature
from anystep.calibrate.maps import FITS, Beta, Isotonic, Platt, fitted
from anystep.errors import UsageError


def _drawn(slope: float, intercept: float, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores in (0, 1), right with probability sigmoid(slope * their log-odds + intercept)."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, n)
    right = 1 / (1 + np.exp(-(slope * odds + intercept)))
    return 1 / (1 + np.exp(-odds)), (rng.random(n) < right).astype(float)


def test_platt_finds_the_law_that_drew_the_labels() -> None:
    found = platt(*_drawn(0.6, -1.0, 40_000))
    assert (found.slope, found.intercept) == pytest.approx((0.6, -1.0), abs=0.05)
    assert temperature(*_drawn(0.5, 0.0, 40_000)).slope == pytest.approx(0.5, abs=0.02)
    bent = beta(*_drawn(0.6, -1.0, 40_000))  # Platt's law is beta's with a = b
    assert (bent.a, bent.b, bent.c) == pytest.approx((0.6, 0.6, -1.0), abs=0.1)


def test_platt_is_the_minimum_that_another_optimiser_finds() -> None:
    x, y = np.random.default_rng(1).normal(3, 5, 80), np.tile([0.0, 1.0], 40)
    x = x + 4 * y
    found, target = platt(x, y), np.where(y > 0, 41 / 42, 1 / 42)

    def loss(w: np.ndarray) -> float:
        z = w[0] * x + w[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    theirs = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
    assert (found.slope, found.intercept) == pytest.approx(tuple(theirs.x), abs=1e-4)
    assert not found.odds  # these scores are no probabilities


def test_isotonic_is_scipy_s_at_the_scores_it_was_fitted_on() -> None:
    x, y = _drawn(1.0, 0.5, 400)
    order = np.argsort(x)
    assert isotonic(x, y)(x[order]) == pytest.approx(isotonic_regression(y[order]).x, abs=1e-12)
    tied = isotonic(np.repeat([0.1, 0.4, 0.3], 10), np.array([0] * 10 + [1] * 8 + [0] * 2 + [1] * 2 + [0] * 8))
    assert tied([0.1, 0.3, 0.35, 0.4]).tolist() == pytest.approx([0.0, 0.2, 0.5, 0.8])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FITS)), st.integers(0, 1_000), st.floats(-2, 3), st.booleans())
def test_every_map_rises_stays_a_probability_and_survives_json(how: str, seed: int, slope: float, hard: bool) -> None:
    x, y = _drawn(slope, 0.3, 200, seed)
    x = np.round(x) if hard else x
    y[:10], y[10:20] = 0.0, 1.0
    found = fitted(how, x, y)
    grid = np.linspace(0, 1, 101)
    values = found(grid)
    assert (values >= 0).all() and (values <= 1).all() and (np.diff(values) >= -1e-12).all()
    assert map_of(found.json()) == found and hash(found) == hash(map_of(found.as_dict()))
    assert np.isnan(found([np.nan])).all() and " at 0x" not in repr(found)


@pytest.mark.parametrize("how", sorted(FITS))
def test_a_map_mends_what_it_is_meant_for(how: str) -> None:
    """Scores too bold by a factor of two in log-odds: held-out error falls from .1 to what chance leaves."""
    found = fitted(how, *_drawn(0.5, 0.0, 4_000, 1))
    x, y = _drawn(0.5, 0.0, 4_000, 2)
    assert ece(x, y).low > 0.08 and ece(found(x), y).high < 0.035


def test_separable_labels_give_a_finite_slope_and_a_useless_score_the_base_rate() -> None:
    x, y = np.repeat([0.2, 0.8], 20), np.repeat([0.0, 1.0], 20)
    assert platt(x, y)([0.2, 0.8]).tolist() == pytest.approx([1 / 22, 21 / 22], abs=1e-6)
    backwards = platt(1 - x, y)
    assert backwards.slope == 0.0 and backwards([0.2, 0.8]).tolist() == pytest.approx([0.5, 0.5])


def test_too_few_labels_or_one_class_are_refused() -> None:
    for how in FITS:
        with pytest.raises(UsageError, match="0 right and 40 wrong labels are too few"):
            fitted(how, np.full(40, 0.5), np.zeros(40))
    with pytest.raises(UsageError, match="9 right and 9 wrong"):
        platt(np.tile([0.2, 0.7], 9), np.tile([0, 1], 9))
    with pytest.raises(UsageError, match="maps probabilities, and scores go from -1 to 3"):
        beta(np.tile([-1.0, 3.0], 20), np.tile([0, 1], 20))
    with pytest.raises(UsageError, match="a score is infinite"):
        platt(np.tile([-np.inf, 3.0], 20), np.tile([0, 1], 20))
    with pytest.raises(UsageError, match="a map is one of platt, temperature, beta, isotonic"):
        fitted("magic", [0.5], [1])


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"map": "platt"}', '{"map": "isotonic", "x": [1, 0], "y": [0, 1]}']
)
def test_what_is_no_saved_map_is_refused_in_a_line(record: str) -> None:
    with pytest.raises(UsageError, match="is no saved map") as error:
        map_of(record)
    assert str(error.value).count("\n") == 0


def test_maps_print_what_they_are() -> None:
    assert repr(Platt(0.5, 0.1)) == "Platt(slope=0.5, intercept=0.1, odds=True)"
    assert repr(Isotonic((0.0, 1.0), (0.25, 0.5))) == "Isotonic(2 points, 0.250 to 0.500)"
    assert Beta(1.0, 1.0, 0.0)([0.3]).tolist() == pytest.approx([0.3])
