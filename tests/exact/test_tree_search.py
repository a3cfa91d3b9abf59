"""Trees against enumeration: where visits and values go, what is found, and what is never paid for twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from anystep import Process, Run, UsageError, drive, reward, search
from anystep.population import Population
from anystep.process import Reward, Status
from anystep.search.ab_mcts import Seen, thompson
from anystep.search.alphamath import HALF, tree_values
from anystep.testing.oracles import EnumerableLM
from anystep.testing.oracles.language import Tokens


def worth(x: Tokens, salt: int = 0) -> float:
    """In [0, 1], unequal for unequal outputs, and beginnings say nothing of what they lead to."""
    return float((salt + 1) * 0.6180339887 * sum((t + 1) * 7 ** (i + 1) for i, t in enumerate(x)) % 1.0)


def likes(salt: int = 0) -> Reward:
    return reward(lambda states: np.array([worth(x, salt) for x in states.tuples()]), f"likes {salt}")


LIKES = likes()


def solvable(best: Tokens) -> Reward:
    """1 while the best output can still be reached, else 0: a perfect value."""
    return reward(lambda states: np.array([float(best[: len(x)] == x) for x in states.tuples()]), "solvable")


def answered(process: Process, method: Any, seed: int = 0) -> tuple[Run, Population]:
    run = Run(process, method, seed=seed)
    (answer,) = drive(run)
    assert answer.population is not None
    return run, answer.population


def small(seed: int, length: int = 4) -> EnumerableLM:
    return EnumerableLM(seed=seed, vocab=3, length=length, expands=True)


@pytest.mark.parametrize("select", ["uct", "puct"])
def test_enough_rounds_see_every_output_once_and_then_stop(select: Any) -> None:
    for seed in range(5):
        lm = small(seed)
        run, found = answered(lm, search.mcts(LIKES, rounds=500, branch=3, select=select, value=HALF, widen=0))
        assert sorted(found.answers or ()) == sorted(lm.outputs)
        inner = len(lm.prefixes())
        again = sum(len(children) == 3 for children in _children(run).values())
        assert again == inner, "each state is expanded once"
        assert run.answer is not None and worth(run.answer.value) == max(map(worth, lm.outputs))  # type: ignore[arg-type]


def _children(run: Run) -> dict[int, set[Any]]:
    """What was asked of each state's children: their distinct last tokens."""
    found: dict[int, set[Any]] = {}
    for node, parents in enumerate(run.books.family.parents):
        for parent in parents:
            found.setdefault(parent, set()).add(node)
    return found


@pytest.mark.parametrize("select", ["uct", "puct"])
def test_a_perfect_value_leads_straight_to_the_best_output(select: Any) -> None:
    astray = 0
    for seed in range(15):
        lm = small(seed, length=5)
        best = max(lm.outputs, key=lambda x: worth(x, seed))  # noqa: B023
        for value in (solvable(best), HALF):
            run, _ = answered(lm, search.mcts(likes(seed), len(best), 3, 1e-6, select, value, widen=0))
            assert run.answer is not None
            if value is HALF:
                astray += run.answer.value != best
            else:
                assert run.answer.value == best and run.spent.evaluations == len(best)
    assert astray > 5, "a value that says nothing must not do as well"


@pytest.mark.parametrize("select", ["uct", "puct"])
def test_visits_go_to_the_best_arm_in_the_limit(select: Any) -> None:
    """Bandit theory: with finished states visited again, the share of visits to the best output tends to one."""
    for seed in range(3):
        lm = small(seed, length=3)
        best, shares = max(lm.outputs, key=worth), list[float]()
        for rounds in (30, 300, 2_000):
            _, tree = answered(lm, tree_values(LIKES, HALF, rounds, 3, 0.5, close=False, select=select))
            visits = dict(zip(tree.states.tuples(), tree.weights / tree.weights[0], strict=True))
            shares.append(visits.get(best, 0.0))
        assert shares == sorted(shares) and shares[-1] > 0.7


def test_values_at_a_large_c_tend_to_the_chance_of_success() -> None:
    good = reward(lambda states: np.array([1.0 - sum(x) % 2 for x in states.tuples()]), "even")
    errors = {}
    for rounds in (30, 1_000):
        errors[rounds] = []
        for seed in range(3):
            lm = small(seed)
            _, tree = answered(lm, tree_values(good, HALF, rounds, 3, 1e6, close=False))
            for x, q, weight in zip(tree.states.tuples(), tree.scores, tree.weights, strict=True):
                mass = {y: p for y, p in lm.outputs.items() if y[: len(x)] == x}
                exact = sum(p for y, p in mass.items() if sum(y) % 2 == 0) / sum(mass.values())
                if weight / tree.weights[0] > 0.1:
                    errors[rounds].append(abs(q - float(exact)))
    assert max(errors[1_000]) < 0.03 < max(errors[30])


def test_visits_at_a_large_c_follow_the_process_s_law() -> None:
    lm = small(1)
    _, tree = answered(lm, tree_values(LIKES, HALF, 1_500, 3, 1e6, close=False))
    first = {x: w / tree.weights[0] for x, w in zip(tree.states.tuples(), tree.weights, strict=True) if len(x) == 1}
    for x, share in first.items():
        exact = float(sum(p for y, p in lm.outputs.items() if y[:1] == x))
        assert share == pytest.approx(exact, abs=0.01)


def test_sampled_trees_widen_and_hold_no_state_twice() -> None:
    lm, found = EnumerableLM(seed=4, vocab=3, length=4), dict[float, int]()
    for widen in (0.0, 0.5):
        _, population = answered(lm, search.mcts(LIKES, 400, 2, value=HALF, widen=widen))
        said = list(population.answers or ())
        assert len(said) == len(set(said))
        found[widen] = len(said)
    assert found[0.5] > 2 * found[0.0]


def test_half_a_rollout_is_half_of_each() -> None:
    lm = EnumerableLM(seed=2, length=4)
    none, half, whole = (
        answered(lm, tree_values(LIKES, HALF, 1, 3, rollout=share))[1].scores[0] for share in (0.0, 0.5, 1.0)
    )
    assert half == pytest.approx((none + whole) / 2) and none != whole


def test_a_value_is_asked_for_where_rollouts_leave_room_for_one() -> None:
    with pytest.raises(UsageError, match="leaves the rest to a value"):
        drive(Run(small(0), search.mcts(LIKES, rollout=0.5)))


def reference_beam(lm: EnumerableLM, value: Callable[[Tokens], float], width: int) -> list[Tokens]:
    """AlphaMath's beam, written out: all children of the beam, the best kept, finished ones moved out."""
    beam, ended = [()], list[Tokens]()
    while beam and width:
        grown = [(*x, t) for x in beam for t in range(3)]
        kept = sorted(grown, key=lambda x: -value(x))[:width]
        out = [x for x in kept if x in lm.outputs]
        ended, beam, width = ended + out, [x for x in kept if x not in lm.outputs], width - len(out)
    return ended


def test_the_step_beam_is_alphamath_s() -> None:
    differs = 0
    for seed in range(10):
        lm = small(seed, 5)
        for width in (1, 3, 5):
            run, found = answered(lm, search.step_beam(width, LIKES, branch=3))
            ended = reference_beam(lm, worth, width)
            assert sorted(found.answers or ()) == sorted(ended) and len(ended) == width
            assert run.answer is not None and run.answer.value == max(ended, key=worth)
            _, plain = answered(lm, search.beam(width, LIKES, branch=3))
            differs += sorted(plain.answers or ()) != sorted(ended)
    assert differs, "retiring what has finished must matter somewhere"


def test_a_distinct_beam_holds_no_two_equal_states() -> None:
    lm = EnumerableLM(seed=5, vocab=2, length=3)
    repeats = 0
    for seed in range(20):
        _, found = answered(lm, search.beam(4, LIKES, 4, distinct=True), seed)
        assert len(set(found.answers or ())) == len(found)
        _, found = answered(lm, search.beam(4, LIKES, 4), seed)
        repeats += len(set(found.answers or ())) < len(found)
    assert repeats


def test_breadth_first_thoughts_are_a_beam() -> None:
    lm = EnumerableLM(seed=3, length=5)
    one, _ = answered(lm, search.tree_of_thoughts(LIKES, branch=3, width=2))
    other, _ = answered(lm, search.beam(2, LIKES, 3, distinct=True))
    assert one.answer is not None and other.answer is not None
    assert one.answer.value == other.answer.value and one.books.family.parents == other.books.family.parents


def depth_first(lm: EnumerableLM, value: Callable[[Tokens], float], least: float) -> tuple[Tokens | None, int, int]:
    """Depth-first search, written out: the best output that finished by the time that one worth entering was entered,
    how many states were expanded, and how long the one that was entered is."""
    expanded, finished = 0, list[Tokens]()

    def visit(x: Tokens) -> Tokens | None:
        nonlocal expanded
        if x in lm.outputs:
            return x
        expanded += 1
        children = [(*x, t) for t in range(3)]
        finished.extend(child for child in children if child in lm.outputs)
        for child in sorted(children, key=value, reverse=True):
            if value(child) >= least and (found := visit(child)):
                return found
        return None

    entered = visit(())
    return (None, expanded, 0) if entered is None else (max(finished, key=value), expanded, len(entered))


def test_depth_first_thoughts_backtrack_and_prune() -> None:
    lm, returned, pruned = small(0, 5), 0, 0
    for salt in range(30):
        for least in (0.3, 0.5, 0.6):
            value = partial(worth, salt=salt)
            expected, expansions, length = depth_first(lm, value, least)
            run, _ = answered(lm, search.tree_of_thoughts(likes(salt), "dfs", 3, prune=least, expansions=200))
            assert run.answer is not None
            said: Any = run.answer.value
            if expected is None:  # all was pruned: what finished, or else the best that was seen, is run to its end
                pruned += 1
                continue
            assert said == expected and run.spent.evaluations == expansions
            returned += expansions > length
    assert returned and pruned, "it must come back from dead ends, and find that there is nothing else"


def test_posteriors_are_the_conjugate_ones() -> None:
    u = (np.arange(20_000) + 0.5) / 20_000
    values = np.array([0.9, 0.4, 0.7])
    seen = Seen(np.full(len(u), 3.0), np.full(len(u), values.sum()), np.full(len(u), (values**2).sum()))
    beta = stats.beta(0.5 + values.sum(), 0.5 + 3 - values.sum())
    assert np.allclose(thompson(seen, u, "beta"), beta.ppf(u))
    # normal-inverse-chi-squared, by its textbook update from mean 1/2, kappa 1, nu 1, scale 0.1
    kappa, nu, centre = 4.0, 4.0, (0.5 + values.sum()) / 4
    scale = (0.1 + values.var() * 3 + 3 / 4 * (values.mean() - 0.5) ** 2) / nu
    t = stats.t(nu, centre, np.sqrt(scale / kappa))
    assert np.allclose(thompson(seen, u, "gaussian"), t.ppf(u))
    for posterior in ("beta", "gaussian"):
        assert thompson(Seen.nothing(1), np.array([0.5]), posterior)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("posterior", ["beta", "gaussian"])
def test_adaptive_branching_finds_the_best_output_in_the_limit(posterior: Any) -> None:
    hits = {}
    for rounds in (4, 320):
        hits[rounds] = 0
        for seed in range(4):
            lm = EnumerableLM(seed=seed, vocab=3, length=3)
            run, _ = answered(lm, search.ab_mcts(LIKES, rounds, 8, posterior, rollout=True), seed)
            assert run.answer is not None
            hits[rounds] += run.answer.value == max(lm.outputs, key=worth)
    assert hits[320] == 4 > hits[4]


def test_adaptive_branching_goes_deep_where_that_gains_and_wide_where_it_loses() -> None:
    lm, wide = EnumerableLM(seed=1, vocab=3, length=6), {}
    for sign in (1, -1):
        grade = reward(lambda s, sign=sign: 0.5 + sign * (s.size - 3.5) / 6, f"grade {sign}")  # type: ignore[misc]
        run, _ = answered(lm, search.ab_mcts(grade, 60))
        wide[sign] = sum(parents == (0,) for parents in run.books.family.parents)
    assert wide[-1] > 2 * wide[1]


def test_copies_are_told_apart_by_content_alone() -> None:
    lm = EnumerableLM(seed=0, length=3)
    _, found = answered(lm, search.sample(n=200))
    once = found.distinct()
    said = list(once.states.tuples())
    assert len(said) == len(set(said)) and set(said) == set(found.states.tuples())
    assert once.weights.sum() == pytest.approx(1.0) and once.distinct() is once
    failed = Population(**{**vars(found), "status": np.full(len(found), np.int8(Status.FAILED))})
    assert len(failed.distinct()) == len(found), "a failed row is no copy"
