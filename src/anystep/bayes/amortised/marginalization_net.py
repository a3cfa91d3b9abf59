"""Two networks on partly known sequences: the log-marginal of what is known, the conditionals of what is not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError

UNKNOWN = 0  # the token of a site whose symbol is not known; symbol k is token k + 1


@dataclass(frozen=True)
class MarginalShape:
    """length: sites. symbols: at each. width, blocks: of the residual networks. Raises UsageError for sizes below 1."""

    length: int
    symbols: int = 2
    width: int = 128
    blocks: int = 2

    def __post_init__(self) -> None:
        if min(self.length, self.width, self.blocks) < 1 or self.symbols < 2:
            raise UsageError(f"{self!r}: 1 or more of each, 2 or more symbols; MarginalShape(length=16, symbols=2).")


class Residual(nn.Module):
    """(n, length) tokens to (n, out) numbers: one-hot, then blocks of two layers around a shortcut."""

    def __init__(self, shape: MarginalShape, out: int) -> None:
        super().__init__()
        self.tokens, width = shape.symbols + 1, shape.width
        self.enter = nn.Linear(shape.length * self.tokens, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(shape.blocks)
        )
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, out)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.enter(F.one_hot(tokens, self.tokens).flatten(1).to(self.enter.weight.dtype))
        for block in self.blocks:
            h = h + block(h)
        found: Tensor = self.leave(self.norm(h))
        return found

    def flops(self) -> float:
        """Of one row: two for each weight of a linear layer."""
        return float(sum(2 * part.weight.numel() for part in self.modules() if isinstance(part, nn.Linear)))


class MarginalNet(nn.Module):
    """`marginal`: (n, length) tokens to (n,) m(x_S), not normalised. `conditional`: to (n, length, symbols) log phi.

    m is a number for the whole plus one for each known site, so that it grows with their count from the start. Neither
    knows of the other: that they are one law's is what training with the self-consistency loss asks of them.
    """

    def __init__(self, shape: MarginalShape) -> None:
        super().__init__()
        self.shape = shape
        self.m, self.phi = Residual(shape, shape.length + 1), Residual(shape, shape.length * shape.symbols)

    def marginal(self, tokens: Tensor) -> Tensor:
        said = self.m(tokens)
        return said[:, 0] + (said[:, 1:] * (tokens != UNKNOWN)).sum(-1)

    def conditional(self, tokens: Tensor) -> Tensor:
        return self.phi(tokens).view(-1, self.shape.length, self.shape.symbols).log_softmax(-1)


def untrained(shape: MarginalShape, seed: int) -> MarginalNet:
    """The networks before training, uniform over symbols; global draws untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MarginalNet(shape)
