"""The winner of n: exact against every draw there is, and against simulation of the law it should follow."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from anystep.calibrate import pressure
from anystep.calibrate.maps import Platt
from anystep.errors import UsageError
from anystep.language.train.figures import best_of, chosen

RNG = np.random.default_rng(0)
SCORES = [np.round(RNG.random(8), 1) for _ in range(5)]  # with ties
LABELS = [(RNG.random(8) < 0.5).astype(float) for _ in range(5)]


@pytest.mark.parametrize("n", [1, 3, 8])
def test_every_draw_of_n_is_counted_once(n: int) -> None:
    map = Platt(0.7, -0.2)
    rows = []
    for score, label in zip(SCORES, LABELS, strict=True):
        each = []
        for some in combinations(range(8), n):
            best = min(some, key=lambda i: (-score[i], i))
            wrong, passes = 1 - label[best], score[best] >= 0.6
            each.append((map([score[best]])[0], label[best], wrong, wrong * passes, passes))
        rows.append(np.mean(each, axis=0))
    says, right, wrong, wrong_passed, passed = np.mean(rows, axis=0)
    (found,) = pressure(SCORES, LABELS, 0.6, (n,), map)
    assert found.says.value == pytest.approx(says) and found.right.value == pytest.approx(right)
    assert found.excess.value == pytest.approx(says - right) and found.passing.value == pytest.approx(passed)
    assert found.false_positives.value == pytest.approx(wrong_passed / wrong)
    assert found.wrong_passing.value == pytest.approx(wrong_passed / passed)
    assert found.right.low <= found.right.value <= found.right.high


def test_the_chances_of_being_chosen_sum_to_one_and_give_best_of() -> None:
    for k in (1, 2, 8):
        chance = chosen(SCORES[0], k)
        assert chance.sum() == pytest.approx(1.0)
        assert best_of(LABELS[0], SCORES[0], k) == pytest.approx(chance @ LABELS[0])


def test_false_positives_gather_where_a_verifier_errs_at_random() -> None:
    """All wrong, each passing with probability .1: the winner passes with 1 - .9 ** n."""
    rng = np.random.default_rng(1)
    scores = [rng.random(32) for _ in range(3_000)]
    found = pressure(scores, [np.zeros(32)] * 3_000, 0.9, (1, 4, 16))
    for one in found:
        expected = 1 - 0.9**one.n
        assert one.false_positives.value == pytest.approx(expected, abs=0.02)
        assert one.false_positives.low < expected < one.false_positives.high
        assert one.wrong_passing.value == 1.0 and one.right.value == 0.0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="labels of at least 16 samples of each problem"):
        pressure(SCORES, LABELS, sizes=(1, 16))
