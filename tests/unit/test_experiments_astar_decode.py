"""Row 223's experiment, small: it has a check for every clause, and its shuffled reward says nothing of a state."""

from __future__ import annotations

from typing import Any

import numpy as np

import anystep
from anystep import drive, search
from anystep.experiments import Result, astar_decode
from anystep.experiments._shuffled import Shuffled
from anystep.language import load
from anystep.ledger import Ledger, Limit
from anystep.run import Run
from anystep.solve import process_for
from anystep.tasks.chains import chains


def short(states: Any) -> list[float]:
    """Shorter chains are better: a reward that needs no training."""
    return [1 / (1 + np.exp(len(text) / 8 - 2)) for text in states.texts()]


def test_it_has_a_check_for_every_clause_and_the_exact_ones_pass() -> None:
    small = astar_decode.run(model=load("chainlm-2m"), problems=2, trees=2, progress=lambda line: None)
    assert small.row == 223 and Result.from_json(small.to_json()).name == "astar_decode"
    assert all(c.passed for c in small.checks if "listed trees" in c.clause or "worst case" in c.clause)
    named = (
        "best of 16",
        "particle filter of 16",
        "tokens over",
        "states scored over",
        "positions",
        "shuffled",
        "vote",
    )
    for words in named:
        assert any(words in c.clause for c in small.checks), words
    for words in ("greedy", "vote of", "as published", "g = 0"):
        assert words in small.notes


def test_a_shuffled_reward_deals_out_values_of_equal_length_by_the_state_s_own_text() -> None:
    engine, dealt = load("chainlm-2m"), {1: (0.1, 0.2), 2: (0.7, 0.8, 0.9)}
    task = chains(1, "dev", families="C")[0]
    (answer,) = drive(Run(process_for(task, engine), search.sample(n=24)))
    assert answer.population is not None
    states, limit = answer.population.states, Limit(Ledger(), "reward")
    one, again = (Shuffled(anystep.reward(short), dealt)(states, limit).values for _ in range(2))
    assert (one == again).all() and set(one) <= {0.7, 0.8, 0.9} and len(set(one)) > 1
    assert (one != Shuffled(anystep.reward(short), dealt, seed=1)(states, limit).values).any()
