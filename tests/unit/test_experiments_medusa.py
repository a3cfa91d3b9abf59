"""Row 6 at a size that runs in seconds: ChainLM in place of SmolLM2, with heads trained here."""

from __future__ import annotations

from functools import cache
from itertools import islice
from random import Random

import pytest

from anystep.experiments import Result, medusa
from anystep.language.engine.engine import Engine
from anystep.language.train.heads import HeadRecipe, fit
from anystep.language.train.joint import JointRecipe, joint, merged
from anystep.language.train.selftext import Written, write
from anystep.tasks.chains import problems
from models import chain_engine

SIZES = medusa.Sizes(prompts=24, tokens=40, nodes=12, second=8, sampled=24, prose=0)


def asked(split: str, count: int) -> list[str]:
    return [p.prompt for p in islice(problems(split, Random(0)), count)]


@cache
def text() -> list[Written]:
    engine = chain_engine()
    starts = [engine.tokenizer.encode(prompt) for prompt in asked("train", 200)]
    return list(write(engine, starts, 60, [i % 2 * 1.0 for i in range(200)]))


@pytest.fixture(scope="module")
def small() -> Result:
    engine = chain_engine()
    quiet = lambda line: None  # noqa: E731
    heads = fit(engine, text(), HeadRecipe(words=64, epochs=3, batch=256), quiet)
    recipe = JointRecipe(texts=200, epochs=2, rows=32, upper=2, rank=8)
    longer, _ = joint(engine.model, heads, text(), JointRecipe(texts=200, epochs=2, rows=32, upper=0), quiet)
    other, added = joint(engine.model, heads, text(), recipe, quiet)
    second = Engine(merged(engine.model, added), engine.tokenizer, name="second")
    return medusa.run(0, quiet, engine, heads, asked("test", SIZES.prompts), (engine, longer), (second, other), SIZES)


def test_it_measures_every_clause_and_the_exact_ones_hold(small: Result) -> None:
    assert small.row == 6 and len(small.checks) == 9 and "tree of 16" in small.notes
    exact = [check for check in small.checks if check.op == "==" or "apart" in check.clause]
    assert len(exact) == 3 and all(check.passed for check in exact)
    fewer = next(check for check in small.checks if "plain passes over" in check.clause)
    assert fewer.value > 1.5
