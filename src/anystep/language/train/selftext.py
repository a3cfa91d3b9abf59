"""Text that a model wrote itself, with its hidden states: what drafters and extra heads are trained on.

A drafter has to foresee this model, not people, so its text is the model's own answers to seeded prompts: chat
templates filled with topics, and free continuations of a first line. Hidden states are those the engine computed
while writing, so nothing is run twice. Made once, then kept by the hash of its recipe.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import product
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.kept import cache_folder
from anystep.language.engine.engine import Engine
from anystep.language.engine.sampling import draw
from anystep.language.engine.tokenizer import Tokenizer, begun

TOPICS = (
    "volcanoes|honey bees|the moon|glaciers|bread|bicycles|chess|coffee|whales|earthquakes|bridges|the violin|"
    "rainforests|penguins|solar panels|tea|deserts|the heart|magnets|trains|coral reefs|gardening|clouds|wolves|"
    "photography|swimming|paper|glass|spiders|the printing press|vaccines|castles|jazz|tides|owls|rice|robots|"
    "elephants|rivers|the stars|cheese|sailing|batteries|butterflies|pottery|marathon running|lightning|maps|"
    "mushrooms|dinosaurs|the telephone|soil|dolphins|chocolate|windmills|libraries|snow|football|eagles|steel|"
    "the compass|yoga|olive oil|tornadoes|the alphabet|camels|painting|gravity|potatoes|lighthouses|ants|opera|"
    "hiking|clocks|sharks|comets|silk|pyramids|recycling|dreams|salt|horses|satellites|forests|the piano|markets|"
    "fossils|kites|weather forecasts|tigers|cities|calendars|oranges|submarines|poetry|fire|sleep|cotton|turtles|"
    "islands|microscopes|friendship|wheat|museums|airplanes|school|cooking|oceans|money|trees|languages"
)
QUESTIONS = (
    "What is interesting about {}?",
    "Write a short paragraph about {}.",
    "List five facts about {}.",
    "Explain {} to a child.",
    "Write a short story about {}.",
    "Why do {} matter?",
    "Give three reasons to learn about {}.",
    "Write a letter to a friend about {}.",
    "Describe the history of {}.",
    "What should a beginner know about {}?",
    "Write a poem about {}.",
    "What are common mistakes people make about {}?",
    "Write a news report about {}.",
    "Give me step by step instructions for a school project about {}.",
)
OPENINGS = (
    "The history of {} begins",
    "There are many things to know about {}. First,",
    "Once upon a time, there was a girl who loved {}.",
    "In this chapter, we will learn about {}.",
    "Scientists who study {} have found that",
    "A conversation about {}:\n\n",
)
HELD_OUT = 8  # one in so many pairs of template and topic is for testing alone


@dataclass(frozen=True)
class TextRecipe:
    """Everything that decides the text: `sequences` of up to `longest` new tokens each, by the fp32 engine `model`.

    A share `warm` of them is sampled at temperature 0.7, the others are greedy. `split` "test" has pairs of template
    and topic that "train" never sees. Each prompt is used once, so `sequences` is at most `len(prompts(split))`.
    """

    model: str = "smollm2-135m"
    split: Literal["train", "test"] = "train"
    seed: int = 0
    sequences: int = 512
    longest: int = 96
    warm: float = 0.25
    rows: int = 64


@dataclass(frozen=True)
class Written:
    """One sequence: its `tokens`, of which the first `start` are the prompt, and `hidden` (tokens, dim) after the
    final norm, in half precision."""

    tokens: tuple[int, ...]
    start: int
    hidden: Tensor


def prompts(split: Literal["train", "test"], seed: int = 0) -> list[tuple[str, bool]]:
    """All prompts of a split in seeded order, each with whether it is a chat message or a first line of plain text."""
    forms = [(form, True) for form in QUESTIONS] + [(form, False) for form in OPENINGS]
    rng, chosen = Random(seed), []
    for (form, chat), topic in product(forms, TOPICS.split("|")):
        told = blake2b(f"{form}|{topic}".encode(), digest_size=4).digest()
        if (told[0] % HELD_OUT == 0) == (split == "test"):
            chosen.append((form.format(topic), chat))
    rng.shuffle(chosen)
    return chosen


def encoded(tokenizer: Tokenizer, text: str, chat: bool) -> list[int]:
    """A prompt's tokens; a chat message goes through the model's template where it has one."""
    if chat and tokenizer.template is not None:
        text = tokenizer.chat([{"role": "user", "content": text}])
    return list(begun(tokenizer, text))


@torch.inference_mode()
def write(
    engine: Engine, starts: Sequence[Sequence[int]], longest: int, temperatures: Sequence[float], seed: int = 0
) -> Iterator[Written]:
    """Continues all of `starts` side by side by up to `longest` tokens each, or to an end token, which belongs to it.

    A row's draws depend on the seed and its place alone. Every token that is told has been fed, so it has its state.
    """
    keys = lineage.roots(seed, (0,), np.arange(len(starts)))
    heat = np.asarray(temperatures, np.float64)
    with engine.lock, engine.open(engine.plan(starts)) as session:
        rows = np.arange(len(starts))
        for at in range(longest):
            logits, next_tokens = session.logits(rows), np.zeros(len(rows), np.int64)
            for temperature in np.unique(heat[rows]):
                some = np.flatnonzero(heat[rows] == temperature)
                u = lineage.uniforms(keys[rows[some]], at)
                next_tokens[some] = draw(logits[torch.from_numpy(some)], u, float(temperature))[0]
            session.append(next_tokens.tolist(), rows)
            rows = rows[~np.isin(next_tokens, sorted(engine.tokenizer.ends))]
            if not len(rows):
                break
        for row, begin in enumerate(starts):
            yield Written(tuple(session.tokens[row]), len(begin), session.states(row).half())


def generate(recipe: TextRecipe, engine: Engine, say: Callable[[str], None] = print) -> Iterator[Written]:
    """The recipe's text, `recipe.rows` sequences side by side."""
    asked = prompts(recipe.split, recipe.seed)
    if recipe.sequences > len(asked):
        raise UsageError(f"TextRecipe(sequences={recipe.sequences}): {recipe.split} has {len(asked):,} prompts.")
    told = 0
    for at in range(0, recipe.sequences, recipe.rows):
        some = asked[at : min(at + recipe.rows, recipe.sequences)]
        starts = [encoded(engine.tokenizer, text, chat) for text, chat in some]
        u = lineage.uniforms(lineage.roots(recipe.seed, (1,), np.arange(at, at + len(some))))
        heat = np.where(u < recipe.warm, 0.7, 0.0)
        for one in write(engine, starts, recipe.longest, heat.tolist(), lineage.named(f"{recipe.seed}, {at}")):
            told += len(one.tokens) - one.start
            yield one
        engine.cache.trim(0)
        say(f"self-generated text: {at + len(some):,} of {recipe.sequences:,} sequences, {told:,} tokens")


def selftext(recipe: TextRecipe, say: Callable[[str], None] = print) -> list[Written]:
    """The recipe's text, written once by the engine and then read from the cache folder."""
    told = json.dumps([asdict(recipe), prompts(recipe.split, recipe.seed)[: recipe.sequences]], sort_keys=True)
    name = f"{recipe.model}-text-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    path = cache_folder() / "text" / f"{name}.safetensors"
    if not path.exists():
        from anystep.language.loading import load  # imported late: loading knows the recipes in this folder

        file_text(list(generate(recipe, load(recipe.model, weights="fp32"), say)), path)
    return read_text(path)


def file_text(text: Sequence[Written], path: Path) -> None:
    """Writes `text` to a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "tokens": torch.tensor([t for one in text for t in one.tokens], dtype=torch.int32),
        "lengths": torch.tensor([len(one.tokens) for one in text], dtype=torch.int32),
        "starts": torch.tensor([one.start for one in text], dtype=torch.int32),
        "hidden": torch.cat([one.hidden for one in text]).half().contiguous(),
    }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as scratch:
        save_file(tensors, Path(scratch) / path.name)
        os.replace(Path(scratch) / path.name, path)


def read_text(path: Path) -> list[Written]:
    """What `file_text` wrote."""
    tensors = load_file(path)
    lengths = tensors["lengths"].tolist()
    tokens, hidden = tensors["tokens"].split(lengths), tensors["hidden"].split(lengths)
    rows = zip(tokens, tensors["starts"].tolist(), hidden, strict=True)
    return [Written(tuple(tokens.tolist()), start, states) for tokens, start, states in rows]
