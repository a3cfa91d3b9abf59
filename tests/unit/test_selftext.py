"""Text a model writes itself: what it says is what the engine says, with the states it had, and it is kept whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anystep.errors import ModelError, UsageError
from anystep.language.train.falcon import FalconRecipe, begin, file_network, read_network, vocabulary
from anystep.language.train.selftext import TextRecipe, file_text, generate, prompts, read_text, selftext, write
from models import text, tiny_engine


@pytest.fixture(scope="module")
def world():
    engine = tiny_engine()
    return engine, list(write(engine, [text(4 + i, seed=i) for i in range(5)], 12, [0.0, 0.0, 0.0, 0.7, 0.7]))


def test_greedy_text_is_the_argmax_and_states_are_the_models(world):
    engine, some = world
    for i, one in enumerate(some):
        states = engine.forward(torch.tensor([one.tokens]), hidden=True)[0]
        assert torch.allclose(one.hidden.float(), states, atol=2e-2)  # half precision of values up to ten
        best = engine.model.logits(states)[one.start - 1 : -1].argmax(-1).tolist()
        assert (best == list(one.tokens[one.start :])) == (i < 3)
        assert one.tokens[: one.start] == text(4 + i, seed=i)


def test_a_rows_draws_do_not_depend_on_the_others(world):
    engine, some = world
    again = list(write(engine, [text(4 + i, seed=i) for i in range(4)], 12, [0.0, 0.7, 0.7, 0.7]))
    assert again[3].tokens == some[3].tokens and again[1].tokens != some[1].tokens


def test_what_is_kept_is_read_again(world, tmp_path):
    _, some = world
    file_text(some, tmp_path / "deep" / "text.safetensors")
    for one, again in zip(some, read_text(tmp_path / "deep" / "text.safetensors"), strict=True):
        assert one.tokens == again.tokens and one.start == again.start and torch.equal(one.hidden, again.hidden)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["text.safetensors"]


def test_testing_has_prompts_that_training_never_sees():
    train, test = prompts("train"), prompts("test")
    assert not set(train) & set(test) and len(set(train)) == len(train) > 1_500 and len(test) > 200
    assert prompts("train", seed=1) != train and sorted(prompts("train", seed=1)) == sorted(train)


def test_too_many_sequences_are_refused(world):
    with pytest.raises(UsageError, match="prompts"):
        next(generate(TextRecipe(sequences=10_000), world[0]))


def test_text_is_written_once(world, tmp_path, monkeypatch):
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    made = []

    def load(name, weights):
        made.append((name, weights))
        return world[0]

    monkeypatch.setattr("anystep.language.loading.load", load)
    monkeypatch.setattr("anystep.language.train.selftext.encoded", lambda tokenizer, words, chat: text(len(words)))
    recipe = TextRecipe(model="tiny", sequences=6, longest=5, rows=4, warm=0.5)
    first, second = selftext(recipe, lambda line: None), selftext(recipe, lambda line: None)
    assert made == [("tiny", "fp32")] and [one.tokens for one in first] == [one.tokens for one in second]
    selftext(replace(recipe, seed=1), lambda line: None)
    assert len(made) == 2


def test_a_trained_network_is_kept_and_another_file_is_named(world, tmp_path):
    engine, some = world
    network = begin(engine, some, FalconRecipe(k=2, kept=1))
    path = tmp_path / "drafter.safetensors"
    file_network(network, path)
    again = read_network(path)
    assert again.k == 2 and again.target == engine.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    file_text(some, tmp_path / "text.safetensors")
    for other in ("text.safetensors", "missing.safetensors"):
        with pytest.raises(ModelError, match="no drafter"):
            read_network(tmp_path / other)


def test_the_vocabulary_is_what_occurs_often_enough(world):
    _, some = world
    counts = np.bincount([token for one in some for token in one.tokens[one.start :]], minlength=64)
    assert vocabulary(some, 2).tolist() == np.flatnonzero(counts >= 2).tolist()
