"""The transformer of a prior-fitted network: context and queries in, one row of logits for each query out.

Source: Müller et al., "Transformers Can Do Bayesian Inference" (arXiv 2112.10510, ICLR 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anystep.errors import UsageError


@dataclass(frozen=True)
class PFNShape:
    """How large: the width of a token, which `heads` divides, and of the inside of a block and of the decoder."""

    width: int = 64
    hidden: int = 128
    blocks: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.blocks, self.heads) < 1 or self.width % self.heads:
            raise UsageError(f"{self}: sizes are 1 or more, heads divides width; PFNShape(width=64, heads=4).")


def silence(layer: nn.Linear) -> nn.Linear:
    """The layer, made to say nothing until it has learned to."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Attend(nn.Module):
    """Every token looks at the context, and a query at itself too; so queries never see each other."""

    def __init__(self, shape: PFNShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.read, self.write = nn.Linear(shape.width, 3 * shape.width), nn.Linear(shape.width, shape.width)
        silence(self.write)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        """h: (sets, context + queries, width). seen: (sets, context) True where a context token is there."""
        sets, tokens, width = h.shape
        q, k, v = self.read(h).view(sets, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        n = seen.shape[1]
        q = q / math.sqrt(width // self.heads)
        there = seen[:, None, None, :]
        context = (q @ k[:, :, :n].transpose(-1, -2)).masked_fill(~there, -math.inf)
        # A context token that is there has itself among the context already.
        own = (q * k).sum(-1, keepdim=True)
        itself = nn.functional.pad(seen, (0, tokens - n))[:, None, :, None]
        weights = torch.cat([context, own.masked_fill(itself, -math.inf)], -1).softmax(-1)
        found = weights[..., :n] @ v[:, :, :n] + weights[..., n:] * v
        return self.write(found.transpose(1, 2).reshape(sets, tokens, width))


class Block(nn.Module):
    def __init__(self, shape: PFNShape) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attend = Attend(shape)
        last = silence(nn.Linear(shape.hidden, shape.width))
        self.inside = nn.Sequential(nn.Linear(shape.width, shape.hidden), nn.GELU(), last)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        h = h + self.attend(self.before(h), seen)
        return h + self.inside(self.between(h))


class PFNNet(nn.Module):
    """Logits of what is at each query, told a context, in one pass; no token has a position.

    So the answer does not depend on the context's order, nor on which other queries are asked. Before training every
    block is the identity and the answer the same everywhere.
    """

    def __init__(self, features: int, outputs: int, shape: PFNShape) -> None:
        super().__init__()
        self.enter_x = nn.Linear(features, shape.width)
        self.enter_y = nn.Linear(1, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        last = silence(nn.Linear(shape.hidden, outputs))
        self.leave = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.hidden), nn.GELU(), last)

    def forward(self, x: Tensor, y: Tensor, query: Tensor, count: Tensor | None = None) -> Tensor:
        """Logits (sets, queries, outputs).

        x, y: (sets, context, features) and (sets, context), the context, which may be empty. query: (sets, queries,
        features). count: (sets,) how many of a row's context it is told, from the first on; by default all.
        """
        n = x.shape[1]
        seen = torch.ones(y.shape, dtype=torch.bool, device=y.device)
        if count is not None:
            seen = torch.arange(n, device=y.device) < count[:, None]
        h = torch.cat([self.enter_x(x) + self.enter_y(y[..., None]), self.enter_x(query)], 1)
        for block in self.blocks:
            h = block(h, seen)
        logits: Tensor = self.leave(h[:, n:])
        return logits
