"""Row 172's experiment, small: texts hold what they should, and its checks measure what they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models import tiny_model

from anystep.experiments import Result, act_qkv
from anystep.experiments._figures import ratio
from anystep.language.accelerate.act_qkv import ActQKV
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet

ASCII = Alphabet("".join(map(chr, range(128))))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_model(vocab=128, layers=3), ASCII, name="tiny")


def test_a_planted_text_has_its_length_and_its_facts_before_the_last_window() -> None:
    text = act_qkv.planted(ASCII.encode, seed=3, length=1_200, facts=4)
    again = act_qkv.planted(ASCII.encode, seed=3, length=1_200, facts=4)
    assert len(text.tokens) == 1_200 and text == again != act_qkv.planted(ASCII.encode, 4, 1_200, 4)
    for name, number, place in text.facts:
        fact = ASCII.encode(act_qkv.FACT.format(name=name, number=number))
        assert list(text.tokens[place : place + len(fact)]) == fact and place + len(fact) < 1_200 - act_qkv.TAIL


def test_the_checks_that_are_exact_pass_and_every_clause_has_one(engine: Engine) -> None:
    small = act_qkv.run(model=engine, texts=1, facts=2, length=900, progress=lambda line: None)
    assert small.row == 172 and Result.from_json(small.to_json()).name == "act_qkv"
    exact = [c for c in small.checks if c.op == "==" or c.clause.startswith("budget of all")]
    assert len(exact) == 3 and all(c.passed for c in exact), [str(c) for c in exact]
    for words in (*act_qkv.RIVALS, "ablation", "fixed total", "correlation", "budget of all"):
        assert any(words in c.clause for c in small.checks), words


def test_rivals_see_no_more_than_the_budget_and_a_wider_one_loses_less(engine: Engine) -> None:
    text = act_qkv.planted(ASCII.encode, seed=1, length=900, facts=2)
    for found in act_qkv.lookups(engine, text, 0.2):
        assert all(0 < share <= 0.2 for share in found.keys.values()), found.keys
        assert sum(found.counts) == found.total
        assert all(0 <= share <= 1 for share in found.recall.values())
    whole = [x.recall["ActQKV"] for x in act_qkv.lookups(engine, text, 1.0)]
    assert whole == [1.0, 1.0]


def test_overlap_counts_the_blocks_most_attended_to(engine: Engine) -> None:
    grid = ActQKV(engine, block=4, sinks=2, latest=2)
    grid.tokens = list(range(20))  # blocks 2..5, 6..9, 10..13, 14..17
    attention = torch.zeros(24)
    attention[7], attention[15] = 0.6, 0.3
    first = torch.tensor([0, 1, 6, 7, 8, 9, 18, 19])
    assert act_qkv.overlap(grid, [attention], [first], [1]) == 1.0
    assert act_qkv.overlap(grid, [attention], [first], [2]) == 0.5


def test_a_ratio_of_means_has_its_interval() -> None:
    theirs = np.random.default_rng(0).uniform(1, 3, 400)
    found = ratio(0.25 * theirs + 0.01, theirs)
    assert found.low < found.value < found.high and abs(found.value - 0.255) < 0.01
    assert np.isnan(ratio(theirs[:1], theirs[:1]).value)
