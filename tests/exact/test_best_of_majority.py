"""Best of majority: its ends are best of n and the k most frequent, and its gate is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep import Run, UsageError, drive, reward, search
from anystep.search import decide
from anystep.search.decide.frequent import candidates
from anystep.testing.checks_decision import population
from anystep.testing.oracles import EnumerableLM

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", None]), st.sampled_from([0.1, 0.4, 0.4, 0.9, np.nan]), st.booleans()
    ),
    min_size=1,
    max_size=12,
)


@given(ROWS)
def test_at_threshold_zero_it_is_best_of_n_row_for_row(rows: list[tuple[str | None, float, bool]]) -> None:
    p = population([a for a, _, _ in rows], [s for _, s, _ in rows], status=[1 if done else 0 for _, _, done in rows])
    assert decide.best_of_majority(threshold=0)(p).row == search.best_reward(p).row


@given(ROWS, st.integers(1, 4))
def test_above_one_it_submits_the_most_frequent_answers(rows: list[tuple[str | None, float, bool]], k: int) -> None:
    p = population([a for a, _, _ in rows if a], [s for a, s, _ in rows if a])
    if not len(p):
        return
    found = decide.best_of_majority(threshold=1.1, k=k)(p)
    said = [(p.answers or ())[row] for row in found.submitted]
    counts = {a: (p.answers or ()).count(a) for a in p.answers or ()}
    assert [counts[a] for a in said] == sorted(counts.values(), reverse=True)[:k]
    assert said[0] == (p.answers or ())[search.majority(p).row or 0]
    assert found.support == search.majority(p).support


def test_the_gate_comes_before_the_reward() -> None:
    p = population("aaabbc", [0.3, 0.5, 0.2, 0.6, 0.1, 0.9])
    assert decide.best_of_majority(threshold=0)(p).submitted == (5,)
    assert decide.best_of_majority(threshold=0.3)(p).submitted == (3,)  # b, a third, by its best sample
    assert decide.best_of_majority(threshold=0.34, k=2)(p).submitted == (1, 3)  # b fills the place
    assert decide.best_of_majority(threshold=0.3, k=3)(p).submitted == (3, 1, 5)
    assert decide.best_of_majority(threshold=0.3, of="mean")(p).submitted == (3,)
    assert decide.best_of_majority(threshold=0.2, of="mean", k=2)(p).submitted == (3, 1)
    verdict = decide.best_of_majority(threshold=0.9, k=1)(p)
    assert verdict.row == 1 and verdict.support == 0.5, "where none is frequent enough, the most frequent"


def test_an_answer_s_reward_is_its_best_or_its_mean() -> None:
    p = population("aab", [0.9, 0.1, 0.6])
    assert decide.best_of_majority(threshold=0.1)(p).row == 0
    assert decide.best_of_majority(threshold=0.1, of="mean")(p).row == 2
    assert [c.reward for c in candidates(p, "mean")] == [0.5, 0.6]


def test_a_sample_without_an_answer_agrees_with_none() -> None:
    p = population([None, None, "b", "b"], [0.9, 0.8, 0.1, 0.2])
    assert decide.best_of_majority(threshold=0)(p).row == 0
    assert decide.best_of_majority(threshold=0.5)(p).row == 3


def test_a_run_tells_what_it_submits() -> None:
    lm = EnumerableLM(seed=2, length=4, answer=len)
    size = reward(lambda states: states.size / 10, "size")
    best, one, two = drive(
        Run(lm, search.best_of_n(n=24, reward=size)),
        Run(lm, search.best_of_majority(n=24, reward=size, threshold=0)),
        Run(lm, search.best_of_majority(n=24, reward=size, threshold=0.2, k=2)),
    )
    assert one.row == best.row and one.text == best.text and one.submitted == (one.row,)
    assert two.population is not None and two.population.answers is not None
    said = [two.population.answers[row] for row in two.submitted]
    shares = [two.population.answers.count(a) / 24 for a in said]
    assert len(said) == 2 and two.value == said[0] and min(shares) >= 0.2 and said == sorted(said, reverse=True)


@pytest.mark.parametrize(
    "call,shown",
    [
        (lambda: decide.best_of_majority(threshold=-0.1), "a share of the samples"),
        (lambda: decide.best_of_majority(threshold=True), "a share of the samples"),
        (lambda: decide.best_of_majority(threshold=0.1, k=0), "1 or more"),
        (lambda: decide.best_of_majority(threshold=0.1, of="sum"), "'max' or 'mean'"),  # type: ignore[arg-type]
        (lambda: search.best_of_majority(n=4, reward=len, threshold=0.1), "must be a Reward"),
        (lambda: search.best_of_majority(n=4, reward=reward(len, "r"), threshold=-1), "0 or more"),
    ],
)
def test_a_wrong_call_shows_the_one_that_was_meant(call, shown: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=shown) as caught:
        call()
    assert "\n" not in str(caught.value)
