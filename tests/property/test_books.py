"""Populations, resampling, draws and states under arbitrary operations."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anystep import Budget, Cost, Ledger, keys
from anystep.search.particle import systematic
from anystep.testing.checks_decision import population
from anystep.testing.limits import unlimited
from anystep.testing.oracles import EnumerableLM

WEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3)


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_systematic_counts_are_neighbours_of_n_times_the_weight(weights: list[float], u: float) -> None:
    w = np.array(weights)
    counts = np.bincount(systematic(w, u), minlength=len(w))
    exact = len(w) * w / w.sum()
    assert counts.sum() == len(w)
    assert (counts >= np.floor(exact - 1e-9)).all() and (counts <= np.ceil(exact + 1e-9)).all()


@given(WEIGHTS, st.data())
def test_taking_renormalises_and_keeps_rows_together(weights: list[float], data: st.DataObject) -> None:
    n = len(weights)
    p = population(tuple(range(n)), scores=list(range(n)), weights=weights)
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=8))
    taken = p.take(rows)
    assert taken.id.tolist() == rows == list(taken.answers or ()) == taken.scores.astype(int).tolist()
    assert np.isclose(taken.weights.sum(), 1) or taken.weights.sum() == 0
    assert p.take(p.id % 2 == 0).id.tolist() == [i for i in range(n) if i % 2 == 0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_joined_members_weigh_by_their_size(sizes: list[int]) -> None:
    members = [population("x" * n) for n in sizes]
    joined = members[0].join(*members[1:])
    assert len(joined) == sum(sizes) and np.allclose(joined.weights, 1 / sum(sizes))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 40), st.floats(0, 1))
def test_a_ledger_never_pays_more_than_its_budget(prices: list[int], cap: int, reserve: float) -> None:
    ledger = Ledger(Budget(tokens=cap), reserve=reserve)
    paid = [price for price in prices if ledger.pay(Cost(generated=price), "x")]
    assert ledger.spent.tokens == sum(paid) <= cap * (1 - reserve) + 1e-9
    assert paid == prices[: len(paid)], "the first refusal is the last word"


@given(st.integers(0, 2**32), st.lists(st.integers(0, 100), max_size=3), st.integers(1, 30), st.integers(1, 30))
def test_roots_nest(seed: int, path: list[int], n: int, m: int) -> None:
    small, large = sorted((n, m))
    many = keys.roots(seed, path, np.arange(large))
    assert keys.roots(seed, path, np.arange(small)).tolist() == many[:small].tolist()


@given(st.integers(0, 50), st.integers(2, 4), st.integers(1, 5))
def test_an_enumerable_model_s_probabilities_sum_to_one(seed: int, vocab: int, length: int) -> None:
    lm = EnumerableLM(seed, vocab, length)
    assert sum(lm.outputs.values()) == 1
    assert all(x[-1] == 0 or len(x) == length for x in lm.outputs)


@given(st.integers(0, 50), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_states_survive_being_written_down(seed: int, rows: list[int]) -> None:
    lm = EnumerableLM(seed, width=2)
    k = keys.roots(seed, (), np.arange(6))
    states = lm.step(lm.begin(k), k, unlimited(), "step").states.take(np.array(rows))
    assert lm.load(lm.dump(states)).tuples() == states.tuples()


@given(st.lists(st.booleans(), max_size=8), st.integers(0, 3))
def test_what_became_of_some_rows_stands_in_their_place(mask: list[bool], seed: int) -> None:
    """`put` keeps the order, the other rows and the weights."""
    n = len(mask)
    weights = (np.arange(n) + 1.0 + seed).tolist()
    before, after = population("a" * n, scores=[0.0] * n, weights=weights), population("b" * n, scores=[1.0] * n)
    found = before.put(np.array(mask, dtype=bool), after.take(np.array(mask, dtype=bool)))
    assert found.scores.tolist() == [float(m) for m in mask] and found.id.tolist() == before.id.tolist()
    assert np.allclose(found.weights, before.weights)
