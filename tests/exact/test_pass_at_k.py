"""pass@k against exact enumeration, its unbiasedness against the binomial law, and counts from a comparison."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest

from anystep.bench import Report, Trial, pass_at, pass_at_k, sampled
from anystep.errors import UsageError
from anystep.ledger import Cost


def test_it_is_the_share_of_subsets_with_a_right_sample():
    for n in range(1, 9):
        for right in range(n + 1):
            samples = [i < right for i in range(n)]
            for k in range(1, n + 1):
                subsets = [any(chosen) for chosen in combinations(samples, k)]
                assert pass_at(n, right, k) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12)


def test_its_mean_over_samples_is_pass_at_k_itself():
    """Over all outcomes of n independent samples, exactly; the plug-in estimate is low."""
    n, k, p = 7, 3, Fraction(2, 9)
    law = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = float(1 - (1 - p) ** k)
    assert float(sum(law)) == 1.0
    assert sum(float(w) * pass_at(n, c, k) for c, w in enumerate(law)) == pytest.approx(truth, abs=1e-12)
    assert sum(float(w) * (1 - (1 - c / n) ** k) for c, w in enumerate(law)) < truth - 0.02


def test_large_counts_neither_overflow_nor_lose_digits():
    found = pass_at(100_000, 3, 1_000)
    exact = 1 - Fraction(math.comb(99_997, 1_000), math.comb(100_000, 1_000))
    assert found == pytest.approx(float(exact), rel=1e-9)
    assert pass_at(100_000, 0, 50_000) == 0.0 and pass_at(10, 10, 1) == pass_at(10, 8, 3) == 1.0


def test_the_interval_is_over_problems():
    found = pass_at_k([(10, 10)] * 20 + [(10, 0)] * 20, 5)
    assert found.value == 0.5 and 0.3 < found.low < 0.4 and 0.6 < found.high < 0.7
    sure = pass_at_k([(10, 5)] * 40, 1)
    assert (sure.value, sure.low, sure.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("given", [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_what_cannot_be_meant_is_one_line(given):
    with pytest.raises(UsageError, match=r"call pass_at\(n=10, right=3, k=5\)") as error:
        pass_at(*given)
    assert "\n" not in str(error.value)


def test_a_comparison_s_single_samples_are_counted_by_problem():
    def trial(label: str, n: int, item: str, seed: int, score: float) -> Trial:
        return Trial(label, n, "", item, seed, score, Cost(), "finished")

    scores = {"a": (1.0, 0.0, 1.0), "b": (0.0, 0.5, math.nan)}
    trials = [trial("self_consistency", 1, item, s, x) for item, all_ in scores.items() for s, x in enumerate(all_)]
    trials += [trial("self_consistency", 4, "a", 0, 1.0), trial("greedy", 1, "a", 0, 1.0)]
    report = Report(tuple(trials), ("greedy", "self_consistency"))
    assert sampled(report) == [(3, 2), (2, 0)]
    assert pass_at_k(sampled(report), 2).value == 0.5
    for label in ("greedy", "best_of_n"):
        with pytest.raises(UsageError, match="there are self_consistency"):
            sampled(report, label)
