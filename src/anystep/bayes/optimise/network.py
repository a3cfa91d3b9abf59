"""A small network whose weights are one vector, so that any number of them run as one batch; and its infinite width.

Weights are whitened: each number of the vector is a priori standard normal, and is multiplied by its prior's scale
where it is used. So samplers and optimisers need not know the layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anystep.bayes.covariance import Positive
from anystep.errors import UsageError

ACTIVATIONS = {"relu": torch.relu, "erf": torch.erf}


@dataclass(frozen=True)
class Network:
    """A perceptron with `depth` hidden layers of `width` units and one output.

    A priori a layer's weights are normal with variance `weights` / inputs, its biases with variance `biases`.
    """

    width: int = 50
    depth: int = 2
    activation: str = "erf"
    weights: float = 4.0
    biases: float = 1.0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"Network(activation={self.activation!r}): activation is one of {', '.join(ACTIVATIONS)}")
        if self.width < 1 or self.depth < 1:
            raise UsageError(f"Network(width={self.width}, depth={self.depth}): both are at least 1")
        if not (self.weights > 0 and self.biases >= 0):
            raise UsageError(f"Network(weights={self.weights}, biases={self.biases}): variances, weights above 0")

    def size(self, inputs: int) -> int:
        """How many numbers the weights are."""
        sizes = self._sizes(inputs)
        return sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs (..., m) of the networks theta (..., size) at x (..., m, inputs)."""
        return self.layers(theta, x, self.depth + 1)[..., 0]

    def features(self, theta: Tensor, x: Tensor) -> Tensor:
        """The last hidden layer (..., m, width)."""
        return self.layers(theta, x, self.depth)

    def layers(self, theta: Tensor, x: Tensor, through: int) -> Tensor:
        """What comes out of the first `through` layers; the last of all is linear."""
        sizes, at, h = self._sizes(x.shape[-1]), 0, x
        for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
            if i == through:
                break
            w = theta[..., at : at + a * b].unflatten(-1, (a, b)) * math.sqrt(self.weights / a)
            bias = theta[..., at + a * b : at + a * b + b] * math.sqrt(self.biases)
            at += a * b + b
            h = h @ w + bias[..., None, :]
            if i < self.depth:
                h = ACTIVATIONS[self.activation](h)
        return h

    def limit(self) -> InfiniteWidth:
        """The covariance of the outputs as the width grows."""
        return InfiniteWidth(self.depth, self.activation, self.weights, self.biases)

    def _sizes(self, inputs: int) -> list[int]:
        return [inputs, *[self.width] * self.depth, 1]


@dataclass(frozen=True)
class InfiniteWidth:
    """The covariance of a random network's outputs in the limit of infinite width: nothing in it is fitted.

    Cho and Saul (2009) for relu, Williams (1997) for erf, layer upon layer as Lee et al. (2018). The fields are
    `Network`'s.
    """

    depth: int = 2
    activation: str = "erf"
    weights: float = 4.0
    biases: float = 1.0

    def __post_init__(self) -> None:
        Network(1, self.depth, self.activation, self.weights, self.biases)  # the same rules, told by the same errors

    def __call__(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The matrix (..., n, m) between x (..., n, d) and z (..., m, d), by default x itself."""
        other = x if z is None else z
        k = self.biases + self.weights * x @ other.mT / x.shape[-1]
        a, b = self._first(x), self._first(other)
        for _ in range(self.depth):
            k = self._layer(k, a[..., :, None], b[..., None, :])
            a, b = self._layer_diagonal(a), self._layer_diagonal(b)
        return k

    def diagonal(self, x: Tensor) -> Tensor:
        """The variances (..., n) at x."""
        a = self._first(x)
        for _ in range(self.depth):
            a = self._layer_diagonal(a)
        return a

    def positives(self) -> dict[str, Positive]:
        """Nothing is fitted."""
        return {}

    def with_(self, values: object) -> InfiniteWidth:
        """Itself, for there is nothing to change."""
        return self

    def _first(self, x: Tensor) -> Tensor:
        return self.biases + self.weights * x.square().mean(-1)

    def _layer(self, k: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if self.activation == "erf":
            inside = 2 * k / torch.sqrt((1 + 2 * a) * (1 + 2 * b))
            return self.biases + self.weights * 2 / math.pi * torch.asin(inside.clamp(-1.0, 1.0))
        size = torch.sqrt(a * b)
        cosine = (k / size).clamp(-1 + 1e-12, 1 - 1e-12)  # its arc has no slope at the ends
        angle = torch.acos(cosine)
        arc = torch.sqrt(1 - cosine.square()) + (math.pi - angle) * cosine
        return self.biases + self.weights / (2 * math.pi) * size * arc

    def _layer_diagonal(self, a: Tensor) -> Tensor:
        if self.activation == "erf":
            return self.biases + self.weights * 2 / math.pi * torch.asin(2 * a / (1 + 2 * a))
        return self.biases + self.weights / 2 * a
