"""The recipes of Medusa's text, heads and second model, with a tiny model in SmolLM2's place: made once, then kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from anystep.errors import UsageError
from anystep.language import loading
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.train.askings import Asked, answered, made_up
from anystep.language.train.heads import HeadRecipe
from anystep.language.train.joint import JointRecipe
from anystep.language.train.medusa import MedusaRecipe, jointly, kept, trained
from anystep.language.train.selftext import TextRecipe
from models import SYMBOLS, tiny_engine, tiny_model


class Chatty(Alphabet):
    template = "a question, then an answer"

    def encode(self, text: str) -> list[int]:
        return super().encode("".join(character if character in SYMBOLS else "?" for character in text))

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        return f"E{messages[0]['content']}A"


def chatty() -> Engine:
    return Engine(tiny_model(), Chatty(SYMBOLS), name="tiny")


RECIPE = MedusaRecipe(
    "tiny",
    TextRecipe("tiny", sequences=40, longest=12, rows=20),
    asked=1,
    heads=HeadRecipe(heads=2, words=40, others=16, epochs=1, batch=64, held=8),
)


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Loading gives the tiny model, and says so here; the cache is empty."""
    seen: list[str] = []

    def load(name: str, **settings: object) -> Engine:
        seen.append(name)
        return chatty()

    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(loading, "load", load)
    return seen


def test_requests_are_made_up_and_answered_once(loads: list[str]) -> None:
    recipe = Asked("tiny", part=2, rows=5, request=6, longest=9)
    asked = made_up(chatty(), recipe)
    assert asked == made_up(chatty(), recipe) and asked != made_up(chatty(), Asked("tiny", 3, 5, 6, 9))
    assert len(set(asked)) > 1 and all(len(text) <= 6 for text in asked)
    first = answered(recipe, lambda line: None)
    again = answered(recipe, lambda line: None)
    assert loads == ["tiny"]
    for text, one, other in zip(asked, first, again, strict=True):
        assert one.tokens[: one.start] == tuple(chatty().tokenizer.encode(f"E{text}A"))
        assert one.tokens == other.tokens and torch.equal(one.hidden, other.hidden)
    with pytest.raises(UsageError, match="no chat template"):
        made_up(tiny_engine(), recipe)


def test_heads_and_the_second_model_are_trained_once(loads: list[str]) -> None:
    said: list[str] = []
    heads = trained(chatty(), RECIPE, said.append)
    assert kept(RECIPE).exists() and len(heads) == 2 and heads.accuracy.sum() > 0
    told = len(said)
    assert torch.equal(trained(chatty(), RECIPE, said.append).inner, heads.inner) and len(said) == told
    recipe = JointRecipe(texts=24, epochs=1, rows=8, upper=1, rank=4, others=16, held=8)
    engine, other = jointly(RECIPE, recipe, "fp32", said.append)
    again, same = jointly(RECIPE, recipe, "fp32", lambda line: pytest.fail(f"trained again: {line}"))
    read = torch.tensor([[5, 6, 7]])
    assert torch.equal(engine.forward(read), again.forward(read)) and torch.equal(other.inner, same.inner)
    assert not torch.equal(engine.forward(read), chatty().forward(read)) and engine.name == "tiny-medusa-2"
    alone, longer = jointly(
        RECIPE, JointRecipe(texts=24, epochs=1, rows=8, upper=0, others=16, held=8), "fp32", said.append
    )
    assert torch.equal(alone.forward(read), chatty().forward(read)) and not torch.equal(longer.inner, heads.inner)
