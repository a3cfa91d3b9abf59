"""Row 225's experiment, small: every clause has its check, and those that are exact pass."""

from __future__ import annotations

import pytest
import torch
from tests.models import tiny_model

from anystep.experiments import Result, reflective_verification
from anystep.experiments._skipping import Watched, skipping
from anystep.language.accelerate import DraftModel, Follow
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_model(vocab=128, layers=4), Alphabet("".join(map(chr, range(128)))), name="tiny")


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(engine, monkeypatch) -> None:
    monkeypatch.setattr(
        reflective_verification, "word_problems", lambda e, n, seed: reflective_verification.capitals(e, n)
    )
    small = reflective_verification.run(
        model=engine, countries=3, problems=2, skipped=(1,), prompt="back:", progress=lambda line: None
    )
    assert small.row == 225 and Result.from_json(small.to_json()).name == "reflective_verification"
    exact = [c for c in small.checks if c.op == "==" or c.clause.startswith("joint")]
    assert len(exact) == 4 and all(c.passed for c in exact), [str(c) for c in exact]
    for words in (
        "capitals: tokens",
        "capitals: acc",
        "word problems: tokens",
        "word problems: acc",
        "corrupted",
        "typ",
    ):
        assert any(words in c.clause for c in small.checks), words


def test_a_model_without_layers_is_the_same_weights_run_in_part(engine) -> None:
    small, tokens = skipping(engine, (1, 2)), torch.tensor([[3, 9, 27, 81]])
    with torch.inference_mode():
        x = engine.model.embed(tokens)
        for layer in (0, 3):
            x = engine.model.blocks(x, None, None, layer, layer + 1)
        wanted = engine.model.norm(x)
    torch.testing.assert_close(small.forward(tokens, hidden=True), wanted)
    with small.open(small.plan([(3, 9, 27)])) as session:
        session.append([81])
        torch.testing.assert_close(session.states(0), wanted[0], atol=2e-5, rtol=1e-5)
    mine, theirs = dict(small.model.named_parameters()), dict(engine.model.named_parameters())
    assert mine["layers.1.mlp.up_proj.weight"] is theirs["layers.3.mlp.up_proj.weight"]


def test_spoilt_guesses_are_counted_and_change_no_answer(engine) -> None:
    asks = reflective_verification.capitals(engine, 3)
    drafter, small = DraftModel(engine), (engine,)
    plain = reflective_verification.tried(asks, Watched(drafter), Follow(), 4, small)
    found = reflective_verification.tried(asks, Watched(drafter, 0.5), Follow(), 4, small)
    assert found.texts == plain.texts and found.length.sum() < plain.length.sum() and len(found.length) == 3
    assert plain.tally.met == 0 < found.tally.met and found.tally.taken <= 0.1 * found.tally.met
    assert sum(found.tally.tokens.values()) == sum(map(len, found.texts))
