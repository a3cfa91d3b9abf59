"""Attention in parts: each part returns its values with their log-sum-exp, so that parts computed apart can be merged.

Softmax over a union of keys is the average of the softmaxes over its parts, weighted by their normalisers. So a
prompt that many rows share is attended once, as one product with all their queries, and merged with what each row
has of its own: Juravsky et al., "Hydragen" (2024). Exact up to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Part = tuple[Tensor, Tensor]  # values (batch, heads, queries, head_dim) and log-sum-exp (batch, heads, queries)


def look(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Part:
    """Scaled dot-product attention of q (batch, heads, queries, head_dim) over k, v with as many heads.

    `mask` is additive and broadcasts to (batch, heads, queries, keys). Every query must see at least one key.
    """
    if q.device.type == "cpu":
        mask = None if mask is None else mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(q, k, v, is_causal=causal, attn_mask=mask)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores + mask
    if causal:
        above = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(above, -math.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def look_back(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Part:
    """Causal attention of a stretch over itself: q, k and v have its positions in order; each sees `window` of them
    back, itself included, or all."""
    time = q.shape[2]
    if window is None or time <= window:
        return look(q, k, v, causal=True)
    seen = torch.ones(time, time, dtype=torch.bool, device=q.device).tril().triu(1 - window)
    return look(q, k, v, torch.zeros(time, time, device=q.device).masked_fill_(~seen, -math.inf)[None, None])


def merge(one: Part, other: Part) -> Part:
    """Attention over the union of two disjoint sets of keys."""
    total = torch.logaddexp(one[1], other[1])
    left, right = (one[1] - total).exp(), (other[1] - total).exp()
    return one[0] * left[..., None] + other[0] * right[..., None], total


def look_own(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Part:
    """One query a row, q (rows, heads, 1, d), over keys of its own, k (rows, kv_heads, keys, d); mask (rows, keys)."""
    rows, heads, _, width = q.shape
    out, lse = look(q.reshape(rows, k.shape[1], -1, width), k, v, mask[:, None, None])
    return out.reshape(rows, heads, 1, width), lse.reshape(rows, heads, 1)


@dataclass(frozen=True)
class Sight:
    """Which keys each query sees, where that differs: `mask` (rows, time, keys) is additive.

    A query that sees none is `blind` (rows, time). Softmax over nothing is undefined, so it looks at all of them, and
    what it sees weighs nothing.
    """

    mask: Tensor
    blind: Tensor

    @classmethod
    def of(cls, seen: Tensor) -> Sight:
        """From booleans (rows, time, keys)."""
        blind = ~seen.any(-1)
        hidden = ~(seen | blind[..., None])
        return cls(torch.zeros(seen.shape, device=seen.device).masked_fill_(hidden, -math.inf), blind)


def look_past(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Part:
    """Queries of q (rows, heads, time, d) over k, v (rows, heads, keys, d), as far as `sight` goes."""
    values, norm = look(q, k, v, sight.mask[:, None])
    return values, norm.masked_fill(sight.blind[:, None], -math.inf)


def look_shared(q: Tensor, k: Tensor, v: Tensor, sight: Sight | None = None) -> Part:
    """All queries of q (rows, heads, time, d) over the same keys k, v (kv_heads, keys, d), as one product."""
    rows, heads, time, width = q.shape
    kinds = k.shape[0]
    packed = q.reshape(rows, kinds, -1, width).transpose(0, 1).reshape(1, kinds, -1, width)
    mask = None
    if sight is not None:
        each = sight.mask[:, None].expand(rows, heads // kinds, time, k.shape[1])
        mask = each.reshape(1, 1, packed.shape[2], k.shape[1])
    out, lse = look(packed, k[None], v[None], mask)
    back = out.view(kinds, rows, heads // kinds, time, width).transpose(0, 1)
    norm = lse.view(kinds, rows, heads // kinds, time).transpose(0, 1).reshape(rows, heads, time)
    if sight is not None:
        norm = norm.masked_fill(sight.blind[:, None], -math.inf)
    return back.reshape(rows, heads, time, width), norm


@dataclass(frozen=True)
class Level:
    """Stretches of cached keys side by side: `keys[i]` (layers, 2, kv_heads, length, d) is seen by `rows[i]` alone, by
    each of their queries as far as `sights[i]` goes, or whole where that is None."""

    keys: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    sights: tuple[Sight | None, ...]
    everyone: bool  # one stretch, seen by all rows in order: no gathering needed

    def look(self, layer: int, q: Tensor) -> tuple[Tensor, Part]:
        """Rows in the order of the answer, and their part."""
        if self.everyone:
            return self.rows[0], look_shared(q, self.keys[0][layer, 0], self.keys[0][layer, 1], self.sights[0])
        parts = [
            look_shared(q[r], k[layer, 0], k[layer, 1], sight)
            for k, r, sight in zip(self.keys, self.rows, self.sights, strict=True)
        ]
        return torch.cat(self.rows), (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def add_levels(levels: Sequence[Level], layer: int, q: Tensor, part: Part) -> Tensor:
    """What q (rows, heads, time, d) sees in `part` and in all `levels` together."""
    for level in levels:
        rows, other = level.look(layer, q)
        if level.everyone:
            part = merge(part, other)
        else:
            values, norm = merge((part[0][rows], part[1][rows]), other)
            part = part[0].index_copy(0, rows, values), part[1].index_copy(0, rows, norm)
    return part[0]
