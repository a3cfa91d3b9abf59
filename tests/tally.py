"""A judge whose every probability is known: it likes `+` and dislikes `-`, wherever they stand in what it reads.

P(Y) : P(N) : P(?) = exp(pluses - minuses) : 1 : exp(doubt), and after its one-letter reply it ends. It runs in the real
engine, cache and attention included, over a vocabulary of bytes with a chat template and its special tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Config, causal
from anystep.language.engine.tokenizer import BYTES, Subwords, byte_level

SPECIAL = ("<|im_end|>", "<|im_start|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NEVER = -60.0
WIDTH = 8  # of a head: pluses, minuses, marks (special tokens), and room


def tokenizer(template: str | None = TEMPLATE) -> Subwords:
    letters = list(BYTES)
    kinds = [3] * len(SPECIAL) + [1] * len(letters)
    return Subwords(byte_level([*SPECIAL, *letters], kinds, [], "gpt-2"), [0], template)


class Tally(nn.Module):
    """Attention with equal weights averages what was read; times the position it is a count."""

    def __init__(self, words: Subwords, weight: float = 1.0, doubt: float = NEVER) -> None:
        super().__init__()
        self.config = Config(words.size, 2 * WIDTH, 1, 1, 1, 8, WIDTH, context=4096)
        self.table = nn.Parameter(torch.zeros(words.size, WIDTH), requires_grad=False)
        for text, feature in (("+", 0), ("-", 1)):
            self.table[words.encode(text)[0], feature] = 1.0
        self.table[: len(SPECIAL), 2] = 1.0
        for text in ("Y", "N", "?"):
            self.table[words.encode(text)[0], 3] = 1.0
        head = torch.zeros(words.size, 2 * WIDTH)
        bias = torch.full((words.size,), NEVER)
        yes, no, unsure = (words.encode(text)[0] for text in ("Y", "N", "?"))
        head[yes, 0], head[yes, 1] = weight, -weight
        bias[yes], bias[no], bias[unsure] = 0.0, 0.0, doubt
        head[0, WIDTH + 3] = -4 * NEVER  # after a reply, the end
        self.head, self.bias = nn.Parameter(head, requires_grad=False), nn.Parameter(bias, requires_grad=False)

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None, **_: Any
    ) -> Tensor:
        own = self.table[tokens]
        if positions is None:
            positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        still = torch.zeros_like(own)[:, None]
        mean = (attend or causal)(0, still, still, own[:, None])[:, 0]
        return torch.cat([mean * (positions[..., None] + 1), own], -1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.head.T + self.bias


def tally_engine(weight: float = 1.0, template: str | None = TEMPLATE, doubt: float = NEVER) -> Engine:
    words = tokenizer(template)
    return Engine(Tally(words, weight, doubt), words, name="tally")


def probability(candidate: str, weight: float = 1.0) -> float:
    """P(Y) / (P(Y) + P(N)) after reading `candidate` and nothing else with a plus or a minus."""
    return 1 / (1 + math.exp(-weight * (candidate.count("+") - candidate.count("-"))))
