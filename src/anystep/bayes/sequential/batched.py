"""Many small networks at once: a multilayer perceptron whose weights are one flat vector a network, batch first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import UsageError


@dataclass(frozen=True)
class MLP:
    """A perceptron of these layer sizes, ReLU or tanh between them, as a function of its weights.

    sizes: inputs, hidden widths, outputs, at least two numbers. activation: "relu" or "tanh". Raises UsageError for
    sizes that make no network, and for inputs or weights of another width.
    """

    sizes: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1 or self.activation not in ("relu", "tanh"):
            raise UsageError(
                f"MLP({self.sizes}, {self.activation!r}): call MLP((1, 40, 40, 1), 'relu'), inputs first, outputs "
                "last, with 'relu' or 'tanh' between"
            )

    @property
    def dim(self) -> int:
        """How many weights, biases included."""
        return sum((a + 1) * b for a, b in pairwise(self.sizes))

    def start(self, generator: torch.Generator) -> Tensor:
        """Fresh weights and biases (dim,), uniform within one over the root of their layer's inputs."""
        parts = []
        for a, b in pairwise(self.sizes):
            parts.append((2 * torch.rand((a + 1) * b, generator=generator) - 1) / math.sqrt(a))
        return torch.cat(parts)

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        """What networks of `weights` (batch, dim) answer for x (batch, n, inputs) or (n, inputs), which all share."""
        if weights.ndim != 2 or weights.shape[1] != self.dim or x.shape[-1] != self.sizes[0]:
            raise UsageError(
                f"MLP{self.sizes}: weights {tuple(weights.shape)} on inputs {tuple(x.shape)}; call "
                f"net(weights, x) with weights (batch, {self.dim}) and x (batch, n, {self.sizes[0]})"
            )
        h, at = x, 0
        for layer, (a, b) in enumerate(pairwise(self.sizes)):
            if layer:
                h = F.relu(h) if self.activation == "relu" else torch.tanh(h)
            w = weights[:, at : at + a * b].view(-1, a, b)
            bias = weights[:, None, at + a * b : at + (a + 1) * b]
            h = torch.matmul(h, w) + bias
            at += (a + 1) * b
        return h
