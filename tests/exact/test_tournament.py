"""Tournaments: how many comparisons, and who wins, against enumeration and the Bradley-Terry order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Cost, Run, UsageError, drive, search
from anystep.ledger import Limit
from anystep.process import Reward, Scored
from anystep.search.tournament import comparisons
from anystep.testing import check_procedure, own_hook
from anystep.testing.oracles import EnumerableLM, FaultyLM
from anystep.verify import bradley_terry

Tokens = tuple[int, ...]
Preference = Callable[[Tokens, Tokens], float]


@dataclass(frozen=True)
class Against(Reward):
    """How far a state is preferred to the references, by a plain function; a prompt token for each comparison."""

    judge: Pairs
    references: tuple[Tokens, ...]
    name: str = "pairs"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values, rows = np.full(len(states), np.nan), np.arange(len(states))
        each = Cost(prompt=len(self.references), evaluations=1)
        rows = rows[limit.pay(rows, each=each, once=Cost(calls=1))]
        if len(rows):
            values[rows] = self.judge.forward(states.take(rows), self.references)
        return Scored(values, limit.used)


@dataclass(frozen=True)
class Pairs:
    prefers: Preference = field(repr=False)

    def against(self, references: Any) -> Against:
        return Against(self, references.tuples())

    def forward(self, states: Any, references: tuple[Tokens, ...]) -> np.ndarray:
        return np.array([np.mean([self.prefers(own, other) for other in references]) for own in states.tuples()])


def size(x: Tokens) -> float:
    return sum(x) + 0.01 * len(x) + 1e-4 * sum(t * 3**i for i, t in enumerate(x))


def longer(one: Tokens, other: Tokens) -> float:
    return float(size(one) > size(other)) if size(one) != size(other) else 0.5


def close(one: Tokens, other: Tokens) -> float:
    return float(1 / (1 + np.exp(size(other) - size(one))))


LM = EnumerableLM(seed=6, length=5)
VARIED = EnumerableLM(seed=2, vocab=9, length=5)  # its samples are all different


@pytest.mark.parametrize("group", [2, 3, 5, 11, 20])
def test_a_judge_without_errors_finds_the_best_at_the_stated_number_of_comparisons(group: int) -> None:
    for n in (1, 2, 7, 11):
        (answer,) = drive(Run(VARIED, search.tournament(n=n, judge=Pairs(longer), group=group)))
        assert answer.population is not None
        said = answer.population.states.tuples()
        assert size(answer.value) == max(map(size, said))  # type: ignore[arg-type]
        paid = answer.costs.get("pairs", Cost()).prompt
        assert len(set(said)) == n and paid == comparisons(n, group)
    assert comparisons(16) == 15 and comparisons(16, 16) == 120 and comparisons(16, 4) == 4 * 6 + 6
    assert comparisons(1) == 0 and comparisons(5, 4) == 6 + 0 + 1


def test_a_knockout_is_the_bracket_written_out() -> None:
    """With a judge that goes in circles: the winner of each pair in order, round by round."""

    def odd(one: Tokens, other: Tokens) -> float:
        return 0.5 + 0.5 * float(np.sin(3 * (size(one) - size(other))))

    changed = 0
    for seed in range(20):
        (answer,) = drive(Run(LM, search.tournament(n=8, judge=Pairs(odd)), seed=seed))
        assert answer.population is not None
        said, left = answer.population.states.tuples(), list(range(8))
        while len(left) > 1:
            left = [a if odd(said[a], said[b]) >= 0.5 else b for a, b in zip(left[::2], left[1::2], strict=True)]
        assert answer.row == left[0]
        changed += size(answer.value) < max(map(size, said))  # type: ignore[arg-type]
    assert changed > 5, "such a judge should not find the largest"


def test_one_group_of_all_is_a_round_robin_and_chooses_as_bradley_terry() -> None:
    for seed in range(10):
        (answer,) = drive(Run(LM, search.tournament(n=6, judge=Pairs(close), group=6), seed=seed))
        assert answer.population is not None
        said = answer.population.states.tuples()
        wins = np.array([[0.5 if i == j else close(a, b) for j, b in enumerate(said)] for i, a in enumerate(said)])
        np.fill_diagonal(wins, 0)
        strengths = bradley_terry(wins, prior=0.1)
        assert strengths[answer.row] == pytest.approx(strengths.max(), abs=1e-6)


def test_scores_are_rounds_and_ties_go_to_who_came_first() -> None:
    (answer,) = drive(Run(LM, search.tournament(n=4, judge=Pairs(lambda a, b: 0.5))))
    assert answer.population is not None and answer.row == 0
    assert answer.population.scores.tolist() == [2, 0, 1, 0]
    (missing,) = drive(Run(LM, search.tournament(n=4, judge=Pairs(lambda a, b: float("nan")))))
    assert missing.row == 0


def test_failed_candidates_do_not_take_part() -> None:
    (answer,) = drive(Run(FaultyLM(share=0.3, length=3), search.tournament(n=8, judge=Pairs(longer)), seed=2))
    assert answer.population is not None and answer.failed > 0
    assert np.isnan(answer.population.scores[~answer.population.done]).all() and answer.population.done[answer.row]
    assert answer.costs["pairs"].prompt == comparisons(int(answer.population.done.sum()))


def test_it_keeps_the_laws_of_procedures() -> None:
    lm, judge = EnumerableLM(length=3), Pairs(longer)
    check_procedure(search.tournament(n=3, judge=judge), lm, own_hook(lm, judge), most=20)


def test_equal_candidates_are_compared_with_a_third_once() -> None:
    lm = EnumerableLM(seed=6, vocab=2, length=1)
    (answer,) = drive(Run(lm, search.tournament(n=8, judge=Pairs(longer), group=8)))
    assert answer.costs["pairs"].prompt < comparisons(8, 8)


def test_cut_short_it_answers_with_what_has_finished() -> None:
    (answer,) = drive(Run(LM, search.tournament(n=4, judge=Pairs(longer)), Budget(tokens=14)))
    assert answer.stopped_because == "tokens" and answer.text is not None and answer.cost.tokens <= 14


@pytest.mark.parametrize(
    "options,shown",
    [
        ({"judge": len}, "a judge of pairs, such as verify.pairwise"),
        ({"judge": Pairs(longer), "group": 1}, "2 or more"),
    ],
)
def test_a_wrong_call_shows_the_one_that_was_meant(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(UsageError, match=shown):
        search.tournament(n=4, **options)
