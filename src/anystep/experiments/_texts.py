"""Prompts whose answers quote their context, prompts answered freely, and noise: what speculation is tried on."""

from __future__ import annotations

import numpy as np

from anystep.language.engine.tokenizer import Tokenizer

THINGS = ("lighthouse", "windmill", "stone bridge", "tavern", "clock tower", "library", "harbour wall", "chapel")
TOWNS = ("Corvan", "Eldmoor", "Hask", "Little Brae", "Ostby", "Quern", "Tarnwick", "Velm")
FIRST = ("Edda", "Tomas", "Mirel", "Jonas", "Ansa", "Pieter", "Ruth", "Calum")
LAST = ("Marsh", "Reed", "Holt", "Varga", "Lindqvist", "Obrey", "Sand", "Teague")
STOOD = ("on a cliff of red stone", "beside the old salt road", "where two rivers meet", "at the edge of a birch wood")
USED = ("to store wool and barley", "as a school for sailors", "to signal ships in fog", "as a market for rope")
KEPT = ("a small museum of maps", "a collection of painted glass", "the records of the guild", "two brass telescopes")
ASKED = (
    "Repeat the following text word for word.\n\n{text}",
    "Correct any spelling mistakes in this text and give it back in full:\n\n{text}",
    "Here is a text:\n\n{text}\n\nQuote the sentences about how it was used and what it holds today, as they stand.",
)
FREE = (
    "Why do leaves change colour in autumn?",
    "Write a short story about a boat that is afraid of water.",
    "Explain to a child how a bicycle stays upright.",
    "What should I think about before I adopt a dog?",
    "Describe a morning in a busy kitchen.",
    "Give me three ideas for a rainy afternoon and say why each is good.",
    "How did people tell the time before clocks?",
    "Compare living in a city with living in a village.",
)


def quoting(n: int, seed: int) -> list[str]:
    """n requests to give back a short made-up text, or a part of it."""
    rng = np.random.default_rng([seed, 174])
    return [ASKED[i % len(ASKED)].format(text=passage(rng)) for i in range(n)]


def passage(rng: np.random.Generator) -> str:
    """Five sentences about a building that does not exist."""

    def one(of: tuple[str, ...]) -> str:
        return of[rng.integers(len(of))]

    year = int(rng.integers(1500, 1880))
    return (
        f"The {one(THINGS)} of {one(TOWNS)} was built in {year} by {one(FIRST)} {one(LAST)}. It stands {one(STOOD)}, "
        f"and for {int(rng.integers(20, 90))} years it was used {one(USED)}. In {year + int(rng.integers(30, 90))} a "
        f"storm took its roof, and {one(FIRST)} {one(LAST)} paid {int(rng.integers(3, 90)) * 10} crowns for a new one. "
        f"Today it holds {one(KEPT)}."
    )


def free(n: int) -> list[str]:
    """n requests that are answered in the model's own words."""
    return [FREE[i % len(FREE)] for i in range(n)]


def noise(n: int, seed: int, tokenizer: Tokenizer, vocab: int, length: int = 40) -> list[str]:
    """n texts of random tokens."""
    rng = np.random.default_rng([seed, 175])
    return [tokenizer.decode(tuple(rng.integers(vocab // 50, vocab, length).tolist())) for _ in range(n)]
