"""Row 174's experiment, small, on a random model that reads printable characters: its checks measure what they name."""

from __future__ import annotations

import string
from dataclasses import replace

import numpy as np
import pytest

from anystep.experiments import Result, trie_lookahead
from anystep.experiments._texts import ASKED, noise, passage, quoting
from anystep.experiments.trie_lookahead import COLD, Kind, Ran, ran, thrifty, tied
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from models import tiny_model

SYMBOLS = "\0" + string.printable[:95] + "\n"


@pytest.fixture(scope="module")
def engine() -> Engine:
    model = tiny_model(scale=0.2, vocab=len(SYMBOLS))
    return Engine(model, Alphabet(SYMBOLS, end="~"), name="tiny")


@pytest.fixture(scope="module")
def small(engine: Engine) -> Result:
    return trie_lookahead.run(model=engine, prompts=3, requests=30, max_tokens=20, progress=lambda line: None)


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(small: Result) -> None:
    assert small.row == 174 and Result.from_json(small.to_json()).name == "trie_lookahead"
    for words in (
        "differ from plain",
        "beyond plain",
        "over those with the trie",
        "single best branch",
        "nodes in all",
    ):
        assert any(words in check.clause for check in small.checks), words
    for kind in ("quoting", "free", "after noise", "noise, drawn at temperature 2"):
        exact = [c for c in small.checks if c.clause.startswith(f"{kind}: ") and c.op in ("==", "<=")]
        assert len(exact) == 3 and all(check.passed for check in exact), [str(check) for check in exact]
    within = [check for check in small.checks if "nodes in all" in check.clause or "forgotten" in check.clause]
    assert len(within) == 2 and all(check.passed for check in within), [str(check) for check in within]


def test_what_it_counts_is_what_the_engine_did(engine: Engine) -> None:
    kind = Kind("quoting", tuple(quoting(1, 0)), 0.0)
    for drafter in (None, COLD, replace(COLD, mode="one")):
        engine.cache.trim(0)
        before = engine.counters.passes, engine.counters.positions
        (found,) = ran(engine, kind, drafter, 20, 0)
        assert found.passes == engine.counters.passes - before[0]
        assert found.shown == engine.counters.positions - before[1] - found.prompt - (found.passes - 1)
        assert found.shown == 0 or drafter is not None


def test_a_wrong_output_and_a_dear_one_are_caught(engine: Engine) -> None:
    kind = Kind("quoting", tuple(quoting(1, 0)), 0.0)
    (plain,) = ran(engine, kind, None, 20, 0)
    other = tuple((token + 1) % len(SYMBOLS) for token in plain.tokens)
    assert not tied(engine, kind, kind.prompts[0], plain, replace(plain, tokens=other))
    assert thrifty(kind, [plain], [plain]).passed
    assert not thrifty(kind, [plain], [replace(plain, shown=60)]).passed
    assert not thrifty(kind, [plain], [Ran(plain.tokens, plain.prompt, plain.passes + 5, 0)]).passed


def test_its_texts_are_its_seeds(engine: Engine) -> None:
    assert quoting(4, 0) == quoting(7, 0)[:4] != quoting(4, 1)
    assert quoting(3, 0)[2].startswith(ASKED[2][:15]) and "was built in" in passage(np.random.default_rng(0))
    assert len(set(noise(3, 0, engine.tokenizer, len(SYMBOLS)))) == 3
