"""Row 48's experiment, small: its checks measure what they name, with verifiers that know nothing."""

from __future__ import annotations

import numpy as np
import pytest

from anystep.experiments import Result, natural_program
from anystep.experiments.natural_program import ARMS, LONG, Steps, above
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.train.chainlm import untrained
from anystep.ledger import FREE
from anystep.process import Floats
from anystep.tasks.chains import Alphabet as Characters
from anystep.tasks.premises import CONTENT, KINDS


def tiny(seed: int) -> Engine:
    model = untrained(Config(len(Characters()), 32, 1, 1, 1, 64, 32, context=400), seed).eval()
    return Engine(model, Alphabet(Characters().symbols), name=f"tiny{seed}")


@pytest.fixture(scope="module")
def small() -> Result:
    engines = {arm: tiny(i) for i, arm in enumerate(ARMS)}
    return natural_program.run(
        verifiers=engines, reasoner=tiny(9), planted=12, voted=3, n=2, spellings=200, progress=lambda line: None
    )


def test_it_has_a_check_for_every_clause_and_the_exact_ones_pass(small: Result) -> None:
    assert small.row == 48 and Result.from_json(small.to_json()).name == "natural_program"
    exact = [check for check in small.checks if check.op == "=="]
    assert len(exact) == 4 and all(check.passed for check in exact), [str(check) for check in exact]
    for words in ("equal examples", "equal tokens", "context tokens", "minus majority's", "not rejected", "recovered"):
        assert any(words in check.clause for check in small.checks), words
    tokens = next(check for check in small.checks if check.clause.startswith("context tokens"))
    assert tokens.value < 0.2, "what a step cites is short"
    for words in ("rules, alone", "oracle", "as many tokens", *KINDS, *ARMS):
        assert words in small.notes, words


def steps(p: Floats, wrong: Floats) -> Steps:
    n = len(p)
    kinds = tuple("result" if w else "" for w in wrong)
    books = np.arange(n) // 4, np.ones(n, bool)
    return Steps(wrong, kinds, *books, p, np.zeros(n, bool), np.ones(n), FREE, 0.0)


def test_a_difference_of_aurocs_is_found_with_its_sign_and_covers_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    wrong = np.asarray(rng.random(400) < 0.4, dtype=np.float64)
    sharp, blunt = 1 - wrong + rng.normal(0, 0.5, 400), 1 - wrong + rng.normal(0, 2.0, 400)
    assert above(steps(sharp, wrong), steps(blunt, wrong)).low > 0.05
    noise = above(steps(rng.random(400), wrong), steps(rng.random(400), wrong))
    assert noise.low < 0 < noise.high
    assert steps(1 - wrong, wrong).auroc(CONTENT) == 1.0


def test_arms_differ_in_what_is_shown_or_learned_alone() -> None:
    from anystep.language.train.deduce import LONG as recipe
    from anystep.language.train.deduce import VerifierRecipe

    assert ARMS[LONG] == recipe.context == "cited" and recipe.updates > VerifierRecipe().updates
