"""Tuning a small model on pairs: what it learns, what it refuses, and that what was trained is kept."""

import json
from dataclasses import replace

import pytest
import torch

from anystep.errors import UsageError
from anystep.language.engine.llama import Config
from anystep.language.train.chainlm import Cost, untrained
from anystep.language.train.checkpoint import load
from anystep.language.train.sampler import sample
from anystep.language.train.tune import Tuning, batches, kept, tune
from anystep.tasks.chains import Alphabet

ALPHABET = Alphabet()
SMALL = Config(len(ALPHABET), 32, 1, 2, 2, 64, 16, context=16)
PAIRS = [("a?", "bb."), ("c?", "d.")]


def quiet(_: str) -> None: ...


def test_only_what_follows_the_prompt_is_learned() -> None:
    tokens, targets = next(batches(PAIRS, ALPHABET, 2, seed=0))
    for row, target in zip(tokens, targets, strict=True):
        text = ALPHABET.decode(row.tolist())
        assert ALPHABET.decode(target.tolist()) == text.partition("?")[2]
        at = text.index("?")
        assert target[:at].eq(0).all() and target[at : len(text) - 1].gt(0).all()


def test_it_learns_the_pairs_and_counts_what_it_took() -> None:
    model = untrained(SMALL, seed=0)
    cost = tune(model, ALPHABET, PAIRS, Tuning.fresh(tokens=3_000), quiet)
    assert sample(model.eval(), ALPHABET, ["a?", "c?"], temperature=0.0) == ["bb.", "d."]
    assert cost.tokens >= 3_000 and cost.problems == cost.updates * 64


def test_emphasis_decides_what_is_learned() -> None:
    """A character of weight 0 is not learned; without emphasis it is."""
    found = []
    for emphasis in ({}, {"b": 0.0}):
        model = untrained(SMALL, seed=0)
        tune(model, ALPHABET, PAIRS, replace(Tuning.fresh(tokens=3_000), emphasis=emphasis), quiet)
        found.append(sample(model.eval(), ALPHABET, ["a?", "c?"], temperature=0.0, longest=3))
    assert found[0] == ["bb.", "d."] and "b" not in found[1][0] and found[1][1] == "d."


def test_same_recipe_same_weights_and_nobody_elses_draws() -> None:
    before = torch.random.get_rng_state()
    one, other = untrained(SMALL, seed=0), untrained(SMALL, seed=0)
    for model in (one, other):
        tune(model, ALPHABET, PAIRS, Tuning.fresh(tokens=200, seed=1), quiet)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("pairs", "said"),
    [([], "nothing to learn from"), ([("a?", "b" * 20)], "context=22"), ([("", "b.")], "empty prompt")],
)
def test_what_cannot_be_learned_is_refused(pairs: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tune(untrained(SMALL, 0), ALPHABET, pairs, Tuning(), quiet)


def test_what_was_trained_is_kept_by_its_recipe(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    made = []

    def make():  # type: ignore[no-untyped-def]
        made.append(1)
        return untrained(SMALL, 0), SMALL, Cost(1, 1, 1, 0.0, 0.0)

    one, again = (kept("small", {"seed": 0}, make) for _ in range(2))
    other, based = kept("small", {"seed": 1}, make), kept("small", {"seed": 0}, make, start="chainlm-2m")
    assert one == again and len({one, other, based}) == 3 and len(made) == 3
    tensors, card = load(one.stem, one.parent)
    assert card.config == SMALL and card.recipe == {"seed": 0} and set(tensors) == set(untrained(SMALL, 0).state_dict())
    assert json.loads(one.read_text())["cost"]["tokens"] == 1
