"""Row 12's experiment, small: a check for every clause, those that are exact pass, and the scorer counts right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anystep.experiments import Result
from anystep.experiments import superposed_decoding as experiment
from anystep.language.accelerate.ngrams import NGrams
from models import chain_engine, text, tiny_engine


@pytest.fixture(scope="module")
def small() -> Result:
    return experiment.run(
        model=tiny_engine(),
        scorer=tiny_engine(seed=1),
        prefixes=[text(15, i) for i in range(6)],
        ngrams=NGrams([text(2_000, seed=9)]),
        timed=2,
        progress=lambda line: None,
    )


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(small: Result) -> None:
    assert small.row == 12 and Result.from_json(small.to_json()).name == "superposed_decoding"
    exact = [check for check in small.checks if check.op == "=="]
    assert len(exact) == 5 and all(check.passed for check in exact), [str(c) for c in exact]
    for words in ("separate nucleus runs", "best of 3", "first draft", "mean of 3", "ablation"):
        assert any(words in check.clause for check in small.checks), words
    assert "cosine below 0.6" in small.notes and "greedy" in small.notes


def test_a_text_is_scored_by_the_tokens_it_adds() -> None:
    judge = chain_engine()
    prefix, texts = "C4 7 9 3 4>97?", ["4+4=8", "4", ""]
    nats = experiment.heard_by(judge, prefix, texts)
    tokens = torch.tensor([judge.tokenizer.encode(prefix + texts[0])])
    logp = judge.forward(tokens)[0].log_softmax(-1)
    own = [-float(logp[at - 1, tokens[0, at]]) for at in range(len(prefix), tokens.shape[1])]
    assert nats[0] == pytest.approx(np.mean(own), abs=1e-4)
    assert nats[1] == pytest.approx(own[0], abs=1e-4) and math.isnan(nats[2])


def test_superposing_one_draft_is_its_own_mixture() -> None:
    engine, prompt = tiny_engine(), text(15)
    lone = NGrams([(*prompt, *text(30, seed=4))])
    found = list(experiment.superpositions(engine, prompt, lone, even=False))
    assert len(found) == experiment.TOKENS - 1 and all(-1 <= cosine <= 1 + 1e-6 for cosine, _ in found)
    assert found[0][0] > 0.99 or found[0][1] < 0.99  # where one draft has all the weight, nothing is blended
