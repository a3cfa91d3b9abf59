"""The routing experiments, small: every clause has its check, and those that are exact pass."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import Run, drive, search
from anystep.experiments import Result, arbitrage, glimp_router
from anystep.experiments._routes import Bench, Hashed, StepDoubt, by_steps, labelled, last_step
from anystep.language import load
from anystep.ledger import Ledger, Limit
from anystep.solve import process_for
from anystep.tasks.chains import chains


@pytest.fixture(scope="module")
def small() -> Result:
    return glimp_router.run(items=20, fewer=2, seeds=1, progress=lambda line: None)


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(small: Result) -> None:
    assert small.row == 193 and Result.from_json(small.to_json()).name == "glimp_router"
    exact = [c for c in small.checks if c.op == "=="]
    assert len(exact) == 5 and all(c.passed for c in exact), [str(c) for c in exact if not c.passed]
    for words in ("AUROC", "over the large model's", "writes", "random routing", "a handed step", "threshold inf"):
        assert any(words in c.clause for c in small.checks), words
    for words in ("vote@", "greedy", "margin", "perplexity", "FLOPs"):
        assert words in small.notes, words


def test_steps_are_labelled_up_to_the_first_wrong_one() -> None:
    engine, tasks = load("chainlm-300k"), chains(6, "dev", seed=2, families="C")
    bench = Bench(engine, engine, tasks, 0, say=lambda line: None)
    routed = bench(search.draft_router(bench.writer(engine), StepDoubt(engine=engine), 999.0))
    values, wrong, names, families = labelled(routed, tasks, before=False)
    assert set(families) == {"C"} and len(values) == len(wrong) == len(names) and not np.isnan(values).any()
    for task, run in zip(tasks, routed.runs, strict=True):
        own = wrong[[name == task.id for name in names]]
        assert run.answer is not None
        assert not own[:-1].any() and own[-1] == 1 - task.score(run.answer.text or "")


def test_a_step_s_doubt_is_that_of_its_own_tokens() -> None:
    engine, (task,) = load("chainlm-300k"), chains(1, "dev", seed=2, families="A")
    (answer,) = drive(Run(process_for(task, engine, temperature=1.0), by_steps()))
    assert answer.population is not None
    states = answer.population.states
    (tokens,), (start,) = states.tokens, states.starts
    begin = last_step(tokens, start, engine.tokenizer)
    assert engine.tokenizer.decode(tokens[begin:]) == (answer.text or "").split("\n")[-1]
    import torch

    logs = engine.forward(torch.tensor([tokens]))[0, begin - 1 : -1].double().log_softmax(-1)
    surprise = -logs.gather(-1, torch.tensor(tokens[begin:])[:, None]).mean()
    found = StepDoubt("surprise", engine=engine)(states, Limit(Ledger(), "doubt")).values
    assert found[0] == pytest.approx(float(surprise), abs=1e-4)
    (free,) = Hashed()(states, Limit(Ledger(), "random")).values
    assert 0 <= free < 1 and free != Hashed(salt=1)(states, Limit(Ledger(), "random")).values[0]


def test_arbitrage_has_a_check_for_every_clause_and_those_that_are_exact_pass() -> None:
    found = arbitrage.run(items=12, recorded=12, progress=lambda line: None)
    assert found.row == 46
    exact = [c for c in found.checks if c.op in ("==", ">")]
    assert len(exact) == 6 and all(c.passed for c in exact), [str(c) for c in exact if not c.passed]
    for words in ("fixed threshold's", "regenerated", "hindsight", "no ledger has", "threshold 1.0"):
        assert any(words in c.clause for c in found.checks), words
    for words in ("no annotations", "sign, balanced", "target alone"):
        assert words in found.notes, words
