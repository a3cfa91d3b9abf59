"""Prose that people wrote, which every Python carries, and a model's perplexity on given texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Texts = Sequence[tuple[tuple[int, ...], int]]  # tokens, and from which on they are judged


def prose(engine: Any, tokens: int, each: int = 256) -> list[tuple[tuple[int, ...], int]]:
    """About `tokens` tokens of the language reference's help topics (`pydoc_data.topics`), in pieces of `each`."""
    if tokens < each:
        return []
    from pydoc_data.topics import topics

    words = engine.tokenizer.encode("\n\n".join(topics[name] for name in sorted(topics))[: 8 * tokens])
    pieces = [tuple(words[at : at + each]) for at in range(0, len(words), each)]
    return [(piece, 1) for piece in pieces[: tokens // each]]


def perplexity(engine: Any, texts: Texts) -> float:
    """exp of the mean surprise of the tokens from each text's start on."""
    import torch
    from torch.nn import functional as F

    total = count = 0.0
    for tokens, start in texts:
        read = torch.tensor([tokens])
        states = engine.forward(read, hidden=True)[0, start - 1 : -1]
        total += F.cross_entropy(engine.model.logits(states), read[0, start:], reduction="sum").item()
        count += len(tokens) - start
    return math.exp(total / count)
