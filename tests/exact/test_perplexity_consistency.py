"""Perplexity consistency against closed forms: mean, variance and rates of its estimates, and what pruning may drop."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.stats import weibull_min

from anystep import Run, UsageError, drive, search
from anystep.population import Population
from anystep.search import decide
from anystep.search.decide import pruning
from anystep.testing import assert_mean, merged
from anystep.testing.checks_decision import population
from anystep.testing.oracles import EnumerableLM

PC = decide.perplexity_consistency(prune=False)


def drawn(answers: Sequence[Hashable], texts: Sequence[str], logp: Sequence[float]) -> Population:
    return replace(population(answers), texts=tuple(texts), logp=np.array(logp, dtype=np.float64))


def moments(p: np.ndarray, n: int) -> tuple[float, float]:
    """Expectation and variance of the sum of p over the distinct paths among n draws, for paths of probabilities p."""
    unseen = (1 - p) ** n
    pairs = np.outer(p, p) * ((1 - np.add.outer(p, p)) ** n - np.outer(unseen, unseen))
    np.fill_diagonal(pairs, 0)
    return float((p * (1 - unseen)).sum()), float((p**2 * unseen * (1 - unseen)).sum() + pairs.sum())


def test_the_estimates_have_the_closed_forms_mean_and_variance() -> None:
    """Over every sequence of draws, weighted by its probability: equality, not statistics."""
    law = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    said, n = "aabab", 4
    mean = square = 0.0
    for paths in product(range(len(law)), repeat=n):
        seen = drawn([said[i] for i in paths], [str(i) for i in paths], np.log(law[list(paths)]).tolist())
        found = float(np.exp(decide.estimates(seen).get("a", -np.inf)))
        weight = float(law[list(paths)].prod())
        mean, square = mean + weight * found, square + weight * found**2
    expected, variance = moments(law[[0, 1, 3]], n)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert square - mean**2 == pytest.approx(variance, rel=1e-9)
    assert variance < 0.75 * 0.25 / n, "below a vote's p (1 - p) / n"


def test_a_language_model_s_own_path_probabilities_give_the_same_mean() -> None:
    lm = EnumerableLM(seed=1, vocab=3, length=3, answer=lambda tokens: tokens[0])
    runs = merged(lambda seed: Run(lm, search.perplexity_consistency(n=8, prune=False), seed=seed), range(400))
    found = []
    for run in runs:
        assert run.answer is not None and run.answer.population is not None
        whole = replace(run.answer.population, texts=lm.texts(run.answer.population.states))
        found.append(np.exp(decide.estimates(whole).get(1, -np.inf)))
    p = np.array([float(q) for x, q in lm.outputs.items() if x[0] == 1])
    assert_mean(np.array(found), moments(p, 8)[0])
    assert p.sum() - moments(p, 8)[0] > 0.03, "an estimate without the unseen mass's bias would be told apart"


def test_errors_fall_exponentially_at_the_rate_of_the_rarest_path_and_a_vote_s_as_one_over_n() -> None:
    """The squared error's slope tends to log(1 - p) of the rarest path: its variance p^2 (1 - p)^n outlasts the squared
    bias, which falls twice as fast."""
    p = np.array([0.3, 0.2, 0.1])

    def errors(n: int) -> tuple[float, float]:
        mean, variance = moments(p, n)
        return (p.sum() - mean) ** 2 + variance, (p.sum() - mean) ** 2

    (whole, bias), (later, later_bias) = errors(200), errors(201)
    assert np.log(later / whole) == pytest.approx(np.log(0.9), rel=1e-4)
    assert np.log(later_bias / bias) == pytest.approx(2 * np.log(0.9), rel=1e-4)
    assert errors(64)[0] < 0.01 * p.sum() * (1 - p.sum()) / 64


def reference(answers: Sequence[str], texts: Sequence[str], logp: Sequence[float]) -> tuple[str, float]:
    """Plain perplexity consistency, written down from its definition."""
    law = {text: (answer, np.exp(lp)) for answer, text, lp in zip(answers, texts, logp, strict=True)}
    sums: dict[str, float] = {}
    for answer, p in law.values():
        sums[answer] = sums.get(answer, 0.0) + p
    best = max(sums, key=lambda a: sums[a])
    return best, sums[best] / sum(sums.values())


@given(st.lists(st.integers(0, 7), min_size=1, max_size=20), st.integers(0, 9))
def test_without_pruning_it_is_plain_perplexity_consistency(paths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    law, said = np.log(rng.dirichlet(np.ones(8))), rng.integers(0, 3, 8)
    answers, texts = ["abc"[said[i]] for i in paths], [str(i) for i in paths]
    logp = law[paths]
    verdict = PC(drawn(answers, texts, logp.tolist()))
    expected, share = reference(answers, texts, logp.tolist())
    assert verdict.row is not None and verdict.support is not None
    assert answers[verdict.row] == expected and verdict.support == pytest.approx(share, rel=1e-9)
    mine = [i for i, a in enumerate(answers) if a == expected]
    assert logp[verdict.row] == max(logp[i] for i in mine), "it is shown by its likeliest path"


def test_a_path_drawn_again_counts_once_though_its_last_bits_differ() -> None:
    """One path of b against a's, drawn three times and computed three times."""
    logp = [np.log(0.3), np.log(0.2), np.log(0.2) - 1e-7, np.log(0.2) + 1e-7]
    verdict = PC(drawn("baaa", ["b", "a", "a", "a"], logp))
    assert verdict.row == 0 and verdict.support == pytest.approx(0.6, abs=1e-6)
    assert search.majority(drawn("baaa", ["b", "a", "a", "a"], logp)).row == 1
    apart = PC(drawn("baaa", ["b", "a1", "a2", "a3"], logp))
    assert apart.row == 3, "three paths are three"


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("shift", [-5_000.0, 300.0])
def test_only_the_ratios_of_probabilities_matter(prune: bool, shift: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        logp, answers = rng.normal(-3, 2, 16), ["abc"[i] for i in rng.integers(0, 3, 16)]
        one = decide.perplexity_consistency(prune)(drawn(answers, list(map(str, range(16))), logp.tolist()))
        other = decide.perplexity_consistency(prune)(drawn(answers, list(map(str, range(16))), (logp + shift).tolist()))
        assert one.row == other.row and one.support == pytest.approx(other.support, rel=1e-5)


def test_probabilities_that_would_underflow_are_told_apart() -> None:
    assert PC(drawn("ab", "12", [-2_001.0, -2_000.0])).row == 1


@given(st.lists(st.floats(-400, 0), min_size=1, max_size=24))
def test_pruning_never_drops_a_path_as_likely_as_the_mean(logp: list[float]) -> None:
    x = np.array(logp)
    keep = pruning.probable(x)
    assert keep[np.argmax(x)]
    assert (np.exp(x - x.max())[~keep] < np.exp(x - x.max()).mean()).all()
    if len(x) < 5:
        assert keep.all()


def test_nothing_is_dropped_where_all_are_alike_and_something_where_they_are_not() -> None:
    assert pruning.probable(np.full(9, -3.0)).all()
    apart = np.array([-1.0, -1.1, -1.05, -1.2, -1.15, -9.0, -9.5, -10.0, -9.2])
    assert pruning.probable(apart).tolist() == [True] * 5 + [False] * 4


def test_pruning_tells_the_two_laws_of_a_known_mixture_apart() -> None:
    rng = np.random.default_rng(0)
    high = weibull_min(6, scale=0.8).rvs(300, random_state=rng)
    low = weibull_min(1, scale=0.02).rvs(300, random_state=rng)
    x = np.log(np.concatenate([high, low]))
    keep = pruning.probable(x)
    assert keep[:300].mean() > 0.99 and keep[300:].mean() < 0.02
    w, k1, l1, k2, l2 = pruning._fitted(x)
    fitted = sorted([(l1, k1), (l2, k2)])
    assert fitted[0][0] == pytest.approx(0.02, rel=0.15) and fitted[1][0] == pytest.approx(0.8, rel=0.05)
    assert fitted[1][1] == pytest.approx(6, rel=0.15) and 0.4 < w < 0.6


def test_the_likelihood_s_gradient_is_its_own() -> None:
    x = np.random.default_rng(1).normal(-2, 1.5, 12)
    for theta in (pruning.START, (0.3, 4.0, 0.5, 0.7, 0.05)):
        found = check_grad(lambda t: pruning._loss(t, x)[0], lambda t: pruning._loss(t, x)[1], np.array(theta))
        assert found < 1e-5


def test_the_method_is_its_samples_and_its_decision() -> None:
    lm = EnumerableLM(seed=4, length=4, answer=len)
    one, other = drive(
        Run(lm, search.perplexity_consistency(n=12)),
        Run(lm, search.sample(n=12).deciding(decide.perplexity_consistency())),
    )
    assert one.value == other.value and one.support == other.support and one.cost.tokens == other.cost.tokens
    assert search.perplexity_consistency(n=2) != search.perplexity_consistency(n=2, prune=False)
    with pytest.raises(UsageError, match="True or False"):
        search.perplexity_consistency(n=2, prune=1)  # type: ignore[arg-type]


def test_what_is_pruned_neither_wins_nor_makes_the_winner_surer() -> None:
    logp = [-1.0, -1.1, -1.05, -1.2, -1.15, -9.0, -9.5, -10.0, -9.2]
    p = drawn("aabbbbbaa", list("123456789"), logp)
    plain, pruned = PC(p), decide.perplexity_consistency()(p)
    assert pruned.row == plain.row == 2 and pruned.support == plain.support
    assert set(decide.estimates(p, prune=True)) == {"a", "b"}
    kept = np.exp(list(decide.estimates(p, prune=True).values())).sum()
    assert kept == pytest.approx(np.exp(logp[:5]).sum())
