"""The advantage router: what it reads, what it pays, and that it is a reward; heads learn a planted advantage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import Run, UsageError, drive, verify
from anystep.language import LanguageProcess, load
from anystep.language.accelerate import advantage_router, arbitrage
from anystep.language.accelerate.advantage import WRITERS, Head, writers_before
from anystep.language.engine.engine import Engine
from anystep.language.train.router import Examples, Fit, fit, record, training_tasks
from anystep.ledger import Ledger, Limit
from anystep.solve import process_for
from anystep.testing import check_reward, counted_torch
from models import tiny_engine

DIM = 192


def limit() -> Limit:
    return Limit(Ledger(), "router")


@pytest.fixture(scope="module")
def engines() -> tuple[Engine, Engine]:
    return load("chainlm-300k"), load("chainlm-2m")


def mixed(engines: tuple[Engine, Engine]) -> Run:
    """A routed run in which both models wrote."""
    small, large = engines
    (task,) = training_tasks(1, seed=3)
    target = process_for(task, large, temperature=0.6)
    run = Run(process_for(task, small, temperature=0.6), arbitrage(target, some_router(), 0.5, n=3), seed=2)
    drive(run)
    return run


def some_router() -> verify.Reward:  # type: ignore[name-defined]
    torch.manual_seed(0)
    return advantage_router(Head(DIM))


def test_a_router_keeps_the_laws_of_rewards(engines: tuple[Engine, Engine]) -> None:
    by = some_router()
    run = mixed(engines)
    assert run.answer is not None and run.answer.population is not None
    states = run.answer.population.states
    by.forget()
    check_reward(by, states, lambda: counted_torch(by.engine.model))
    assert by == some_router() and hash(by) == hash(some_router())
    torch.manual_seed(1)
    assert by != advantage_router(Head(DIM))


def test_the_head_is_told_who_wrote_the_steps_before(engines: tuple[Engine, Engine]) -> None:
    small, _ = engines
    p = process_for(training_tasks(1, seed=3)[0], small, temperature=0.6)
    assert isinstance(p, LanguageProcess)
    tokens = (*small.tokenizer.encode("A9+1+1+1?"), *small.tokenizer.encode("9+1=10\n10+1=11\n11+1=12."))
    ends = [i for i in range(9, len(tokens)) if tokens[i] in small.tokenizer.encode("\n.")]
    from anystep.language.states import Sequences

    first = ends[0] + 1
    told = (("large", 9), ("small", first))
    states = Sequences((tokens, tokens), (9, 9), small.tokenizer, (told, ()))
    assert writers_before(states, 0, ends[:-1]) == [True, False]
    assert writers_before(states, 1, ends[:-1]) == [False, False]
    read = some_router().read_features(states, limit())
    other, own, last, odds = read[0][-1 - WRITERS :].tolist()
    assert (other, own, last) == (1.0, 1.0, 0.0) and read[1][-1 - WRITERS : -1].tolist() == [0.0, 2.0, 0.0]
    value = verify.chain_steps(aggregate="last")(states.take(np.array([0])), limit()).values[0]
    assert odds == pytest.approx(np.log(value / (1 - value)), abs=1e-3)


def test_a_router_of_another_vocabulary_is_refused() -> None:
    engine = tiny_engine()
    engine.tokenizer.symbols = engine.tokenizer.symbols[:60]
    states = LanguageProcess(engine, "what", chat=False).start(np.zeros(1, np.uint64), limit()).states
    with pytest.raises(UsageError, match="chain models"):
        some_router()(states, limit())


@pytest.mark.parametrize("how", [Fit(epochs=30), Fit(epochs=30, regress=True, balanced=False)], ids=["label", "value"])
def test_a_head_learns_an_advantage_that_is_there(how: Fit) -> None:
    torch.manual_seed(0)
    x = torch.randn(600, 2 * 4 + 1 + WRITERS)
    advantage = 0.3 * x[:, 0] + 0.2 * x[:, -2]
    head, rank = fit(Examples(x, torch.zeros(600), advantage), how)
    assert rank > 0.8
    again, _ = fit(Examples(x, torch.zeros(600), advantage), how)
    assert head.digest() == again.digest()
    blind, less = fit(Examples(x, torch.zeros(600), advantage), Fit(epochs=30, annotated=False))
    untold = x.clone()
    untold[:, -1 - WRITERS : -1] = 0.0
    assert less < rank and blind(x).equal(blind(untold))


def test_pairs_are_recorded_and_the_better_step_is_gone_on_with(engines: tuple[Engine, Engine]) -> None:
    small, large = engines
    tasks = training_tasks(6, seed=1)
    drafts = [process_for(task, small, temperature=0.6) for task in tasks]
    target = process_for(tasks[0], large, temperature=0.6)
    found = record(drafts, target, verify.chain_steps(), some_router())
    assert len(found.draft) >= 12 and found.features.shape == (len(found.draft), 2 * DIM + 1 + WRITERS)
    assert ((found.draft >= 0) & (found.target <= 1)).all()
    with pytest.raises(UsageError, match="at least one process"):
        record([], target, verify.chain_steps(), some_router())
