"""Sampling many short chains at once, for training logs, reward data and evaluation.

Plain on purpose: a prompt is read once, keys and values are kept, finished rows are dropped. The serving engine lives
in `language.engine`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.language.engine.llama import Llama
from anystep.tasks.chains import Alphabet


class _Cache:
    """Keys and values of the rows still running, left-padded; an `attend` for `Llama.forward`."""

    def __init__(self, layers: int) -> None:
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.visible = torch.empty(0)  # (rows, 1, queries, keys)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        old_k, old_v = self.keys[layer], self.values[layer]
        if old_k is not None and old_v is not None:
            k, v = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2)
        self.keys[layer], self.values[layer] = k, v
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.visible, enable_gqa=q.shape[1] != k.shape[1])

    def keep(self, rows: Tensor) -> None:
        self.keys = [k[rows] if k is not None else None for k in self.keys]
        self.values = [v[rows] if v is not None else None for v in self.values]


@torch.no_grad()
def sample(
    model: Llama,
    alphabet: Alphabet,
    prompts: list[str],
    temperature: float,
    n: int = 1,
    seed: int = 0,
    longest: int = 80,
) -> list[str]:
    """`n` chains in a row for each prompt, each with its full stop unless it was cut at `longest` tokens.

    `temperature` 0 takes the likeliest token. Prompts are read once and shared by their chains. Draws depend on `seed`
    and on the whole list of prompts.
    """
    if not prompts:
        return []
    generator = torch.Generator().manual_seed(seed)
    encoded = [alphabet.encode(p) for p in prompts]
    width = max(map(len, encoded))
    tokens = torch.tensor([[0] * (width - len(e)) + e for e in encoded])
    real = torch.tensor([[False] * (width - len(e)) + [True] * len(e) for e in encoded])
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    cache = _Cache(len(model.layers))
    causal = torch.ones(width, width, dtype=torch.bool).tril() & real[:, None, :]
    cache.visible = (causal | torch.eye(width, dtype=torch.bool))[:, None]
    logits = model.logits(model(tokens, positions, cache)[:, -1])
    each = torch.arange(len(prompts)).repeat_interleave(n)
    cache.keep(each)
    logits, real, positions = logits[each], real[each], positions[each, -1:]
    out: list[list[int]] = [[] for _ in each]
    rows = torch.arange(len(each))
    for _ in range(longest):
        if temperature:
            noise = torch.rand(logits.shape, generator=generator).clamp_min(1e-20)
            token = (logits / temperature - (-noise.log()).log()).argmax(-1)
        else:
            token = logits.argmax(-1)
        for row, t in zip(rows.tolist(), token.tolist(), strict=True):
            out[row].append(t)
        going = token != alphabet.chain_end
        if not going.any():
            break
        rows, positions = rows[going], positions[going] + 1
        cache.keep(going)
        real = torch.cat([real[going], torch.ones(len(rows), 1, dtype=torch.bool)], 1)
        cache.visible = real[:, None, None]
        logits = model.logits(model(token[going, None], positions, cache)[:, -1])
    return [alphabet.decode(t) for t in out]


def sample_many(
    model: Llama,
    alphabet: Alphabet,
    prompts: list[str],
    n: int,
    temperature: float = 1.0,
    seed: int = 0,
    rows: int = 512,
) -> list[list[str]]:
    """`n` chains for each prompt, in batches of about `rows` chains whose prompts are of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: list[list[str]] = [[] for _ in prompts]
    width = max(1, rows // n)
    for at in range(0, len(order), width):
        some = order[at : at + width]
        texts = sample(model, alphabet, [prompts[i] for i in some], temperature, n, seed * 1_000_003 + at)
        for place, i in enumerate(some):
            found[i] = texts[place * n : (place + 1) * n]
    return found
