"""Row 87's experiment, small: its checks measure what they name, and its replays are what the method itself does."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import search, verify
from anystep.experiments import Result, capability_aware_best_of_n
from anystep.experiments._capability import Pool, gain_kept, sampled, shuffled
from anystep.experiments._equal import outcomes
from anystep.language import load
from anystep.language.engine.engine import Engine
from anystep.tasks.chains import chains


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An untrained self-evaluation: what it says means nothing, and everything else is as it will be."""
    plain = load("chainlm-2m")
    return Engine(plain.model, plain.tokenizer, name="mini-capability")


def test_it_has_a_check_for_every_clause(engine: Engine) -> None:
    small = capability_aware_best_of_n.run(
        engine=engine, ablated=[], problems=4, tuning=2, few=2, n=4, progress=lambda line: None
    )
    assert small.row == 87 and Result.from_json(small.to_json()).name == "capability_aware_best_of_n"
    for words in ("gain over one sample", "samples on average", "pruning half", "by likelihood", "on the ledgers"):
        assert any(words in c.clause for c in small.checks), words
    assert all(c.passed for c in small.checks if "on the ledgers" in c.clause)
    assert "vote@" in small.notes and "random stop" in small.notes


def test_a_replay_is_what_the_method_itself_draws_and_answers(engine: Engine) -> None:
    tasks, reward = chains(5, "dev"), verify.self_evaluation_token(engine)
    pool, _ = sampled(engine, tasks, reward, 4, 0)
    threshold = float(np.median(pool.outlook))
    own = outcomes(engine, tasks, search.capability_aware_best_of_n(4, reward, threshold), 0)
    assert [run.books.started for run in own.runs] == pool.drawn(threshold).tolist()
    assert own.right.tolist() == pool.after(pool.drawn(threshold)).tolist()


def test_figures_of_a_pool_that_is_known() -> None:
    right = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    outlook = np.array([[0.2, 0.9, 0.5], [0.8, 0.1, 0.1], [0.3, 0.4, 0.7]])
    pool = Pool(right, outlook, outlook, outlook, 9)
    assert pool.drawn(0.75).tolist() == [2, 1, 3] and pool.after(pool.drawn(0.75)).tolist() == [1, 1, 1]
    assert pool.best(outlook).tolist() == [1, 1, 1] and pool.best(outlook, 2).tolist() == [1, 1, 0]
    assert pool.tuned(most=2.0) == 0.8 and pool.drawn(0.8).mean() == 2.0
    assert gain_kept(pool.after(np.array([1, 1, 1])), pool.best(outlook), pool.one).value == pytest.approx(0.0)
    assert shuffled(pool, np.array([3, 3, 3]), seed=0).tolist() == [1, 1, 1]
