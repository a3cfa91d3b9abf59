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
SLOPES = {"relu": lambda v: (v > 0).to(v.dtype), "erf": lambda v: torch.exp(-v * v).mul_(2 / math.sqrt(math.pi))}


@dataclass(frozen=True)
class Network:
    """A perceptron with `depth` hidden layers of `width` units and one output.

    A priori a layer's weights are normal with variance `weights` / inputs, its biases with variance `biases`.
    """

    width: int = 32
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
        return self._forward(theta, x)[0][-1][..., 0]

    def features(self, theta: Tensor, x: Tensor) -> Tensor:
        """The last hidden layer (..., m, width)."""
        return self._forward(theta, x, self.depth)[0][-1]

    def log_density(self, theta: Tensor, x: Tensor, y: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        """Log posterior density (...) up to a constant, and its gradient (..., size), of the networks theta (..., size)
        given values y (..., n) at x (..., n, inputs) with noise of variance `noise`.

        The gradient is written out: half of a sampler's time went into recording these few products.
        """
        with torch.no_grad():
            layers, before, weights = self._forward(theta, x)
            miss = y - layers[-1][..., 0]
            value = -0.5 * (miss.square().sum(-1) / noise + theta.square().sum(-1))
            back, parts = (miss / noise)[..., None], []
            for i in range(self.depth, -1, -1):
                scale = math.sqrt(self.weights / weights[i].shape[-2])
                parts += [back.sum(-2) * math.sqrt(self.biases), (layers[i].mT @ back).flatten(-2) * scale]
                if i:
                    back = (back @ weights[i].mT) * SLOPES[self.activation](before[i - 1])
            return value, torch.cat(parts[::-1], -1) - theta

    def _forward(
        self, theta: Tensor, x: Tensor, through: int | None = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The inputs and what comes out of each of the first `through` layers; before activation; scaled weights."""
        sizes = self._sizes(x.shape[-1])
        shapes = list(zip(sizes, sizes[1:], strict=False))
        parts = theta.split([n for a, b in shapes for n in (a * b, b)], -1)
        layers, before, weights = [x], [], []
        for i, (a, b) in enumerate(shapes[:through]):
            weights.append(parts[2 * i].unflatten(-1, (a, b)) * math.sqrt(self.weights / a))
            before.append(layers[-1] @ weights[-1] + (parts[2 * i + 1] * math.sqrt(self.biases))[..., None, :])
            layers.append(ACTIVATIONS[self.activation](before[-1]) if i < self.depth else before[-1])
        return layers, before, weights

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
