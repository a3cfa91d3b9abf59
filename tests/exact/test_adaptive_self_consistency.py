"""A vote that stops early: the same answer as the whole vote, certainly or with a probability that is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc

from anystep import Budget, Run, drive, search
from anystep.search.adaptive_self_consistency import ahead, settled
from anystep.testing import merged
from anystep.testing.oracles import EnumerableLM, FaultyLM


def winner(votes: Sequence[object]) -> object:
    counts = {a: votes.count(a) for a in votes}
    return max(counts, key=lambda a: counts[a], default=None)


@given(st.lists(st.sampled_from("abc"), max_size=7), st.integers(0, 4))
def test_a_vote_is_settled_exactly_where_no_rest_changes_it(votes: list[str], left: int) -> None:
    """Against every rest, one that names a new answer among them."""
    ends = {winner(votes + list(rest)) for rest in product("abcx", repeat=left)}
    assert settled(votes, left) == (len(ends) == 1)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_the_leader_s_probability_is_the_beta_law_s(votes: list[str]) -> None:
    counts = sorted((votes.count(a) for a in set(votes)), reverse=True) + [0]
    assert ahead(votes) == pytest.approx(1 - betainc(counts[0] + 1, counts[1] + 1, 0.5), abs=1e-12)
    assert ahead([]) == 0


def test_with_certainty_asked_for_it_is_the_whole_vote_for_less() -> None:
    lm = EnumerableLM(seed=3, vocab=4, length=3, answer=lambda tokens: tokens[0])
    seeds = range(40)
    whole = merged(lambda seed: Run(lm, search.self_consistency(n=12), seed=seed), seeds)
    early = merged(lambda seed: Run(lm, search.adaptive_self_consistency(n=12, sure=1), seed=seed), seeds)
    for one, other in zip(whole, early, strict=True):
        assert one.answer is not None and other.answer is not None
        assert one.answer.value == other.answer.value and one.answer.text == other.answer.text
        assert other.answer.started <= 12
    assert sum(r.answer.started for r in early if r.answer) < 0.95 * 12 * len(seeds)


def stopping(p: float, n: int, sure: float) -> tuple[float, float]:
    """Of votes that are "a" with probability p, else "b": how likely the answer at the stop is the whole vote's, and
    the mean number of votes: by dynamic programming over (a, b, who came first)."""

    @cache
    def after(a: int, b: int, first: str, said: str) -> float:
        """The probability that the whole vote says `said`."""
        if a + b == n:
            return float(said == ("a" if a > b or (a == b and first == "a") else "b"))
        return p * after(a + 1, b, first, said) + (1 - p) * after(a, b + 1, first, said)

    @cache
    def go(a: int, b: int, first: str) -> tuple[float, float]:
        votes = [first] + ["a"] * (a - (first == "a")) + ["b"] * (b - (first == "b"))
        if a + b == n or settled(votes, n - a - b) or (sure < 1 and ahead(votes) >= sure):
            said = "a" if a > b or (a == b and first == "a") else "b"
            return after(a, b, first, said), float(a + b)
        (s, m), (t, k) = go(a + 1, b, first), go(a, b + 1, first)
        return p * s + (1 - p) * t, p * m + (1 - p) * k

    (s, m), (t, k) = go(1, 0, "a"), go(0, 1, "b")
    return p * s + (1 - p) * t, p * m + (1 - p) * k


def test_runs_stop_and_agree_as_often_as_computed() -> None:
    lm = EnumerableLM(seed=1, vocab=2, length=1)
    p, n, sure, seeds = float(lm.outputs[(0,)]), 10, 0.8, range(120)
    whole = merged(lambda s: Run(lm, search.self_consistency(n=n), seed=s), seeds)
    early = merged(lambda s: Run(lm, search.adaptive_self_consistency(n=n, sure=sure), seed=s), seeds)
    pairs = [(a.answer, b.answer) for a, b in zip(whole, early, strict=True) if a.answer and b.answer]
    same = np.array([a.value == b.value for a, b in pairs])
    used = np.array([b.started for _, b in pairs])
    agree, votes = stopping(p, n, sure)
    assert abs(same.mean() - agree) < 5 * np.sqrt(agree * (1 - agree) / len(seeds)) + 1e-12
    assert abs(used.mean() - votes) < 5 * used.std() / np.sqrt(len(seeds))
    assert votes < 0.9 * n


def test_over_questions_it_agrees_with_the_whole_vote_at_least_as_often_as_asked() -> None:
    """Averaged over a uniform prior for the share; at the worst share it is less, as the page says."""
    shares = (np.arange(100) + 0.5) / 100
    for n, sure, mean, worst in ((16, 0.95, 0.9956, 0.9884), (32, 0.95, 0.9879, 0.9607), (32, 0.8, 0.8845, 0.7177)):
        found = np.array([stopping(p, n, sure)[0] for p in shares])
        assert found.mean() == pytest.approx(mean, abs=1e-4) and found.mean() >= sure
        assert found.min() == pytest.approx(worst, abs=1e-4)


def test_a_round_takes_several_samples_and_the_budget_holds() -> None:
    lm = EnumerableLM(seed=3, vocab=2, length=1)
    one, four, cut = drive(
        Run(lm, search.adaptive_self_consistency(n=16)),
        Run(lm, search.adaptive_self_consistency(n=16, batch=4)),
        Run(lm, search.adaptive_self_consistency(n=16), Budget(tokens=3)),
    )
    assert four.started % 4 == 0 and four.started >= one.started and four.cost.calls < one.cost.calls
    assert cut.stopped_because == "tokens" and cut.text is not None and cut.cost.tokens <= 3


def test_failed_samples_have_no_vote_and_are_drawn_for() -> None:
    (answer,) = drive(Run(FaultyLM(share=0.5, length=3), search.adaptive_self_consistency(n=12, sure=1)))
    assert answer.failed > 0 and answer.started <= 12 and answer.text is not None
