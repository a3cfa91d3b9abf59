"""Marginals against enumeration over all labels, where factors form no loop; and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.special import logsumexp

from anystep import UsageError
from anystep.bayes.graphs import Ties, belief_propagation, counted, label_proportions_bp, near
from anystep.experiments.label_proportions_bp import area, exactness


def enumerated(n: int, log_weight: object) -> np.ndarray:
    """Marginals of exp(log_weight(y)) over y in {0, 1}^n, written out."""
    labels = np.array(list(product((0, 1), repeat=n)))
    log = np.array([log_weight(y) for y in labels])  # type: ignore[operator]
    mass = np.exp(log - logsumexp(log))
    return np.asarray(mass @ labels)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
@pytest.mark.parametrize("penalty", [None, 0.7])
def test_a_bag_alone_is_exact(size: int, penalty: float | None) -> None:
    rng = np.random.default_rng(size)
    own, count = rng.normal(size=size) * 2, float(rng.integers(0, size + 1))
    wanted = count if penalty is None else count - 0.3 * (count > 0)

    def log_weight(y: np.ndarray) -> float:
        apart = y.sum() - wanted
        return float(own @ y) + (-np.inf if penalty is None and apart else -(penalty or 0.0) * apart**2)

    bags, counts = np.zeros(size, np.int64), np.array([wanted])
    found = belief_propagation(size, counted(bags, counts, penalty), None, own, damping=0.0)
    assert np.abs(found.marginals - enumerated(size, log_weight)).max() < 1e-8


@pytest.mark.parametrize("seed", range(6))
def test_trees_of_bags_and_ties_are_exact(seed: int) -> None:
    """Three bags of uneven size, ties between bags that close no loop, some of them repelling, and own odds."""
    rng = np.random.default_rng(seed)
    bags = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2])[rng.permutation(12)]
    counts = np.array([2.0, 1.0, 3.0])
    first = [int(rng.choice(np.flatnonzero(bags == b))) for b in (0, 1, 1, 2)]
    ends, strength = np.array([[first[0], first[1]], [first[2], first[3]]]), np.array([1.3, -0.8])
    own = rng.normal(size=12)

    def log_weight(y: np.ndarray) -> float:
        right = all(y[bags == b].sum() == counts[b] for b in range(3))
        return float(own @ y - strength @ (y[ends[:, 0]] != y[ends[:, 1]])) if right else -np.inf

    factors = counted(bags, counts, None)
    found = belief_propagation(12, factors, Ties(ends, strength), own, damping=0.0, tolerance=0.0, iterations=12)
    assert np.abs(found.marginals - enumerated(12, log_weight)).max() < 1e-8
    damped = belief_propagation(12, factors, Ties(ends, strength), own, tolerance=1e-12, iterations=400)
    assert np.abs(damped.marginals - found.marginals).max() < 1e-8


def test_overlapping_groups_that_form_a_tree_are_exact() -> None:
    """One variable in two groups: what one group says of it reaches the other."""
    left, right = (
        counted(np.zeros(3, np.int64), np.array([1.0]), None),
        counted(np.zeros(4, np.int64), np.array([3.0]), None),
    )
    shifted = [type(f)(f.members + 2, f.log_weight) for f in right]
    own = np.array([0.4, -1.0, 0.2, 0.9, -0.3, 0.6])

    def log_weight(y: np.ndarray) -> float:
        return float(own @ y) if y[:3].sum() == 1 and y[2:].sum() == 3 else -np.inf

    found = belief_propagation(6, [*left, *shifted], None, own, damping=0.0)
    assert np.abs(found.marginals - enumerated(6, log_weight)).max() < 1e-8


def test_counts_decide_what_they_leave_no_choice_about() -> None:
    bags, counts = np.array([0, 0, 1, 1, 1]), np.array([2.0, 0.0])
    found = belief_propagation(5, counted(bags, counts, None), Ties(np.array([[0, 2]]), np.array([50.0])))
    assert np.allclose(found.marginals, [1, 1, 0, 0, 0], atol=1e-5) and np.isfinite(found.marginals).all()


def test_neighbours_are_tied_once_and_less_with_distance() -> None:
    points = np.array([[0.0], [1.0], [3.0], [3.0], [4.5]])
    ties = near(points, 1, similarity=2.0)
    by_pair = dict(zip(map(tuple, ties.ends.tolist()), ties.strength.tolist(), strict=True))
    assert len(by_pair) == 3 and by_pair[(2, 3)] == 2.0 > by_pair[(0, 1)]


def test_the_experiment_finds_classes_from_counts_in_a_small_case() -> None:
    """Two clouds, bags of 16: the learned classifier ranks held-out instances, and an area of ranks is what it is."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 320)
    x = rng.normal(size=(320, 2)) + 2.5 * y[:, None] * np.array([1.0, -0.5])
    model = label_proportions_bp(x[:240], np.arange(240) // 16, np.bincount(np.arange(240) // 16, y[:240]), rounds=2)
    assert area(y[240:], model.predict_proba(x[240:])[:, 1]) > 0.85 and len(model.beliefs) == 2
    assert area(np.array([0, 1, 0, 1]), np.array([0.1, 0.1, 0.2, 0.9])) == pytest.approx(0.625)
    assert max(exactness(seed) for seed in range(4)) < 1e-8


@pytest.mark.parametrize(
    "call",
    [
        lambda: counted(np.array([0, 0, 1]), np.array([3.0, 0.0]), None),
        lambda: counted(np.array([0, 0, 2]), np.array([1.0, 0.0, 1.0]), None),
        lambda: counted(np.array([0, 0]), np.array([0.5]), None),
        lambda: belief_propagation(2, [], damping=1.0),
        lambda: belief_propagation(2, [], Ties(np.array([[0, 5]]), np.ones(1))),
        lambda: label_proportions_bp(np.zeros((4, 2)), [0, 0, 1], [1, 1]),
        lambda: label_proportions_bp(np.zeros((4, 2)), [0, 0, 1, 1], [1, 1], neighbours=4),
    ],
)
def test_what_makes_no_sense_is_refused(call: object) -> None:
    with pytest.raises(UsageError):
        call()  # type: ignore[operator]
