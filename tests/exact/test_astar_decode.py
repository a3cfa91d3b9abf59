"""A*-decoding and its core, where every output can be listed: what it finds, in which order, and what it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Budget, Run, UsageError, drive, potential, reward, search
from anystep.process import Reward
from anystep.search.astar_decode import drops
from anystep.search.best_first import Marks, best_first
from anystep.testing.oracles import EnumerableLM
from anystep.testing.oracles.language import Tokens

SIZE = {"vocab": 3, "length": 5}


def falling(x: Tokens) -> float:
    """A product of step rewards in (0, 1): it falls with every step, by how much depends on the step."""
    return float(np.prod([0.55 + 0.44 * np.sin(2.1 * i + 3.3 * t) ** 2 for i, t in enumerate(x, 1)]))


def wavy(x: Tokens) -> float:
    return float(0.5 + 0.5 * np.sin(1.9 * sum((i + 2) * t for i, t in enumerate(x)) + len(x)))


def by(function: Any) -> Reward:
    return reward(lambda states: np.array([function(x) for x in states.tuples()]), function.__name__)


def least(lm: EnumerableLM, function: Any) -> float:
    """The least f of an output, by listing them all."""
    return min(f_of(x, function) for x in lm.outputs)


def f_of(x: Tokens, function: Any) -> float:
    """What its reward lacks, and what it has fallen by on the way."""
    r = [1.0, *(function(x[:i]) for i in range(1, len(x) + 1))]
    return 1 - r[-1] + sum(max(0.0, a - b) for a, b in zip(r, r[1:], strict=False))


def test_with_a_reward_that_only_falls_the_answer_is_the_best_output_for_fewer_expansions() -> None:
    for seed in range(8):
        lm = EnumerableLM(seed=seed, expands=True, **SIZE)
        run = Run(lm, search.astar_decode(by(falling), branch=3, expansions=1_000))
        (answer,) = drive(run)
        assert falling(answer.value) == pytest.approx(max(map(falling, lm.outputs)))  # type: ignore[arg-type]
        exhaustive = len(lm.prefixes())
        assert run.spent.evaluations < 0.5 * exhaustive, "as many as listing the tree"


def test_an_admissible_pair_finds_the_optimum_of_an_exhaustive_search_for_fewer_expansions() -> None:
    """The declared pair of `astar`, -log p of a step and the exact most that can still come."""
    spent, listed = 0, 0
    for seed in range(8):
        lm = EnumerableLM(seed=seed, expands=True, **SIZE)
        run = Run(lm, search.astar(lm.to_go(), branch=3, expansions=1_000))
        (answer,) = drive(run)
        assert lm.outputs[answer.value] == max(lm.outputs.values())  # type: ignore[index]
        spent, listed = spent + run.spent.evaluations, listed + len(lm.prefixes())
    assert spent < 0.2 * listed


def test_where_a_reward_can_rise_the_answer_is_the_goal_it_took_first_and_need_not_be_the_least() -> None:
    lm = EnumerableLM(seed=0, expands=True, **SIZE)

    def late(x: Tokens) -> float:
        """Bad at first after a 1, and perfect at its end."""
        return 0.4 if x[0] != 1 else 1.0 if x in lm.outputs else 0.3

    (answer,) = drive(Run(lm, search.astar_decode(by(late), branch=3, expansions=1_000)))
    assert f_of(answer.value, late) == pytest.approx(1.2) and least(lm, late) == pytest.approx(0.7)  # type: ignore[arg-type]


def test_states_are_taken_by_least_f_deeper_first_and_then_the_older() -> None:
    """Against a search written out on the listed tree."""
    lm = EnumerableLM(seed=4, expands=True, **SIZE)
    for function in (falling, wavy, lambda x: 0.5):
        tree = by(function)
        order: list[Tokens] = []
        queue: list[tuple[float, int, int, Tokens, float]] = [(0.0, 0, 0, (), 0.0)]
        born = 1
        while True:
            _, _, _, x, g = queue.pop(queue.index(min(queue)))
            if x in lm.outputs:
                break
            order.append(x)
            row = lm.forward(np.array([lm.number(x)]))[0]
            for token in np.argsort(-row, kind="stable").tolist():
                y = (*x, token)
                paid = g + max(0.0, (function(x) if x else 1.0) - function(y))
                queue.append((paid + 1 - function(y), -len(y), born, y, paid))
                born += 1
        run = Run(lm, search.astar_decode(tree, branch=3, expansions=1_000))
        (answer,) = drive(run)
        assert answer.value == x
        family = run.books.family
        assert run.spent.evaluations == len(order) and len(family) == born


def test_a_reward_that_says_nothing_leaves_the_first_output_that_the_process_makes() -> None:
    """With flat f the deepest state goes first, and of its children the oldest: a greedy descent."""
    lm = EnumerableLM(seed=2, expands=True, **SIZE)
    (answer,) = drive(Run(lm, search.astar_decode(by(lambda x: 0.5), branch=3)))
    x: Tokens = ()
    while x not in lm.outputs:
        x = (*x, int(np.argmax(lm.forward(np.array([lm.number(x)]))[0])))
    assert answer.value == x


def test_what_stays_open_reaches_what_one_round_of_samples_missed() -> None:
    hits = {"once": 0, "open": 0}
    for seed in range(10):
        lm = EnumerableLM(seed=seed, vocab=3, length=4)
        best = max(map(falling, lm.outputs))
        once, again = drive(
            Run(lm, search.astar_decode(by(falling), branch=2, expansions=120), seed=seed),
            Run(lm, search.astar_decode(by(falling), branch=1, expansions=120, reopen=0.02), seed=seed),
        )
        for name, answer in (("once", once), ("open", again)):
            hits[name] += falling(answer.value) >= best - 1e-9  # type: ignore[arg-type]
    assert hits["open"] > 8 > hits["once"], hits


def test_no_two_siblings_that_are_scored_say_the_same_and_none_is_scored_twice() -> None:
    lm = EnumerableLM(seed=1, **SIZE)
    scored: list[tuple[Tokens, ...]] = []
    r = reward(lambda states: [scored.append(states.tuples()), np.array([wavy(x) for x in states.tuples()])][1], "seen")
    run = Run(lm, search.astar_decode(r, branch=4, expansions=60, reopen=0.05, goals=3))
    drive(run)
    every = [x for batch in scored for x in batch]
    assert len(every) == len(set(every)), "there is one path to each prefix here, so equal ones are siblings"
    assert len(run.books.family) > len(every) + 5, "and some samples were equal"


def test_expansions_are_a_budget_and_what_is_open_then_is_run_to_its_end() -> None:
    lm = EnumerableLM(seed=3, vocab=3, length=7)
    for most in (1, 2, 3, 8):
        run = Run(lm, search.astar_decode(by(falling), branch=2, expansions=most), seed=5)
        (answer,) = drive(run)
        assert answer.value in lm.outputs and answer.stopped_because == "finished"
        assert len(run.books.family.scores) <= 2 * most + 1
        assert len(run.books.family) <= 1 + 2 * most + lm.length


def test_a_run_s_budget_holds_inside_an_expansion() -> None:
    lm = EnumerableLM(seed=3, vocab=3, length=7)
    for cap in range(1, 30, 4):
        run = Run(lm, search.astar_decode(by(wavy), branch=3, reopen=0.1), Budget(tokens=cap), seed=cap)
        drive(run)
        assert run.spent.tokens <= cap


def test_of_several_goals_the_one_with_the_highest_reward_answers() -> None:
    lm = EnumerableLM(seed=7, expands=True, **SIZE)
    runs = [Run(lm, search.astar_decode(by(wavy), branch=3, expansions=1_000, goals=k)) for k in (1, 4)]
    one, four = drive(*runs)
    assert four.population is not None and len(four.population) == 4 and four.population.answers is not None
    assert four.population.answers[0] == one.value
    assert wavy(four.value) == max(wavy(x) for x in four.population.answers)  # type: ignore[arg-type]


def test_costs_are_falls_alone_and_the_pair_is_pluggable() -> None:
    before = Marks(np.zeros(1), np.array([0.6]), np.zeros(1, bool))
    after = Marks(np.zeros(3), np.array([0.9, 0.2, np.nan]), np.array([True, False, False]))
    cost, togo = drops(1.0)(before, after)
    assert np.allclose(cost[:2], [0.0, 0.4]) and np.allclose(togo[:2], [0.1, 0.8]) and togo[2] == np.inf
    root = Marks(np.zeros(1), np.array([np.nan]), np.zeros(1, bool))
    assert np.allclose(drops(1.0)(root, after)[0][:2], [0.1, 0.8]), "a start has lost nothing yet"
    lm = EnumerableLM(seed=0, expands=True, **SIZE)

    def shortest(before: Marks, after: Marks) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(after.logp)), np.zeros(len(after.logp))

    exploring = best_first(by(wavy), shortest, branch=3, expansions=1_000)
    (answer,) = drive(Run(lm, _method(exploring)))
    assert len(answer.value) == min(map(len, lm.outputs))  # type: ignore[arg-type]


def _method(exploring: Any) -> Any:
    from anystep.procedure import Method

    def body() -> Any:
        found = yield from exploring
        return found.finished()

    return Method("best_first", (), body, search.best_reward)


def test_a_reward_without_a_highest_value_is_refused() -> None:
    with pytest.raises(UsageError, match="highest value"):
        search.astar_decode(potential(lambda states: states.size * 1.0, "endless"))
    with pytest.raises(UsageError, match="reopen"):
        search.astar_decode(by(wavy), reopen=-0.1)
