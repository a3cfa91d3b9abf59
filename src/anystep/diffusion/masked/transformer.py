"""A small transformer over tokens with a mask: what a masked model, and its autoregressive rival, is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """length: sites. symbols: beside the mask. classes: the conditions, beside none. causal: each site sees those
    before it alone, and is predicted from them."""

    length: int
    symbols: int
    classes: int = 0
    width: int = 128
    layers: int = 4
    heads: int = 4
    causal: bool = False


class Block(nn.Module):
    """x + attention(norm x), then + MLP(norm x)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.causal, width = shape.heads, shape.causal, shape.width
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.mix(self.before(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        return x + self.down(F.gelu(self.up(self.between(x))))


class TokenTransformer(nn.Module):
    """(n, length) tokens of classes (n,), -1 for none, to logits (n, length, symbols)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.symbols + 1, shape.width)
        self.embed_place = nn.Embedding(shape.length, shape.width)
        self.embed_class = nn.Embedding(shape.classes + 1, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm, self.head = nn.RMSNorm(shape.width), nn.Linear(shape.width, shape.symbols)
        for table in (self.embed, self.embed_place, self.embed_class):
            nn.init.normal_(table.weight, std=0.5)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        if self.shape.causal:
            begin = torch.full_like(tokens[:, :1], self.shape.symbols)
            tokens = torch.cat([begin, tokens[:, :-1]], 1)
        told = self.embed_class(condition % (self.shape.classes + 1))
        x = self.embed(tokens) + self.embed_place.weight + told[:, None]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
