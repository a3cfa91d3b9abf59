"""Coverage: the estimate is the enumeration, the laws are their closed forms, and every answer is submitted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta as beta_law

from anystep import Run, UsageError, drive, search
from anystep.bench import BetaBinomial, PowerLaw, beta_binomial, curve, power_law, spread
from anystep.testing import assert_mean
from anystep.testing.oracles import EnumerableLM
from anystep.testing.runs import merged


def test_the_curve_is_the_mean_over_all_ways_to_draw_k() -> None:
    pools = [(0, 0, 0, 1, 0, 1), (0, 0, 0, 0, 0, 0), (1, 1, 1, 0, 1, 1), (0, 1, 0)]
    counts = [(len(pool), sum(pool)) for pool in pools]
    for k in (1, 2, 3):
        drawn = [np.mean([any(chosen) for chosen in combinations(pool, k)]) for pool in pools]
        assert curve(counts, [k])[0] == pytest.approx(np.mean(drawn), abs=1e-12)
    with pytest.raises(UsageError, match="with k at most n"):
        curve(counts, [4])  # of a problem with three samples nothing is known at four
    with pytest.raises(UsageError, match="needs problems"):
        curve([], [1])


def test_the_estimate_is_unbiased_on_a_process_whose_law_is_known() -> None:
    process = EnumerableLM(vocab=3, length=3)
    target = max(process.outputs, key=lambda o: (process.outputs[o], o))
    p = float(process.outputs[target])
    runs = merged(lambda seed: Run(process, search.repeated_sampling(8), seed=seed), range(3000))
    right = [(8, sum(a == target for a in run.answer.population.answers)) for run in runs]
    for k in (1, 3, 8):
        assert_mean([float(curve([c], [k])[0]) for c in right], 1 - (1 - p) ** k)


def test_a_power_law_finds_itself_and_goes_on() -> None:
    law = PowerLaw(a=-2.3, b=-0.4)
    ks = spread(64)
    found = power_law(ks, law.at(ks))
    assert found.a == pytest.approx(law.a, rel=1e-4) and found.b == pytest.approx(law.b, rel=1e-4)
    assert found.at([256, 10_000]) == pytest.approx(law.at([256, 10_000]), abs=1e-5)
    assert ks[0] == 1 and ks[-1] == 64 and len(ks) == len(set(ks))
    full = power_law((1, 2, 4), (1.0, 1.0, 1.0))
    assert full.at(8) == pytest.approx(1.0, abs=1e-3)
    for ks, shares, said in [
        ((1, 2), (0.0, 0.0), "no problem was solved"),
        ((1,), (0.5,), "as many shares"),
        ((1, 2), (0.5, 1.5), "as many"),
    ]:
        with pytest.raises(UsageError, match=said):
            power_law(ks, shares)


def test_beta_binomial_coverage_is_its_integral_and_the_fit_finds_it() -> None:
    law = BetaBinomial(0.4, 1.7)
    for k in (1, 5, 256):
        missed, _ = quad(lambda p, k=k: (1 - p) ** k * beta_law.pdf(p, law.a, law.b), 0, 1, limit=200)
        assert law.at(k) == pytest.approx(1 - missed, abs=1e-6)
    rng = np.random.default_rng(0)
    chances = rng.beta(law.a, law.b, 4_000)
    found = beta_binomial([(64, int(c)) for c in rng.binomial(64, chances)])
    assert found.a == pytest.approx(law.a, rel=0.1) and found.b == pytest.approx(law.b, rel=0.1)
    for counts in ([(4, 0), (4, 0)], [(4, 4)], []):
        with pytest.raises(UsageError, match="some right and some wrong"):
            beta_binomial(counts)


def test_every_answer_is_submitted_the_most_frequent_first() -> None:
    for seed in range(20):
        (answer,) = drive(Run(EnumerableLM(vocab=3, length=2), search.repeated_sampling(12), seed=seed))
        said = [answer.population.answers[row] for row in answer.submitted]
        counts = [answer.population.answers.count(a) for a in said]
        assert set(said) == set(answer.population.answers) and len(said) == len(set(said))
        assert counts == sorted(counts, reverse=True) and answer.value == said[0]
        assert (
            answer.value == drive(Run(EnumerableLM(vocab=3, length=2), search.self_consistency(12), seed=seed))[0].value
        )
