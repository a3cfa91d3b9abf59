"""What a Markov chain should leave invariant: a log density on R^d, in batches, with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.errors import ModelError, UsageError

Floats = NDArray[np.float64]
LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """A density on R^d, up to a constant: `Target(lambda x: -0.5 * (x**2).sum(-1), dimension=3)`.

    log_density: from points (n, d), float64, to (n,); written in torch, since gradients come from it, and each row for
    itself. Minus infinity where the density is zero; NaN and infinity are taken for that. log_likelihood: with it
    `log_density` is the prior, and the target at heat h is prior times likelihood^h: what tempering and annealing move
    through. Both are evaluated together and count as one evaluation.

    Raises UsageError for a dimension below 1, ModelError where a function's answer has another shape than (n,).
    """

    log_density: LogDensity
    dimension: int
    log_likelihood: LogDensity | None = None
    name: str = "target"

    def __post_init__(self) -> None:
        if not isinstance(self.dimension, int) or self.dimension < 1:
            raise UsageError(f"Target(dimension={self.dimension!r}): how many numbers a point has; dimension=2.")

    def parts(self, position: Floats) -> Floats:
        """log prior and log likelihood, shape (n, 2); without a likelihood the second is zero."""
        with torch.no_grad():
            x = torch.from_numpy(position).clone()
            return self._columns([self._checked(function, x) for function in self._functions()])

    def parts_and_slopes(self, position: Floats) -> tuple[Floats, Floats]:
        """`parts`, and the gradient of each, shape (n, 2, d)."""
        slopes = np.zeros((len(position), 2, self.dimension))
        found = []
        for at, function in enumerate(self._functions()):
            x = torch.from_numpy(position).clone().requires_grad_(True)
            value = self._checked(function, x)
            if value.requires_grad:
                slopes[:, at] = torch.autograd.grad(value.sum(), x, materialize_grads=True)[0].numpy()
            found.append(value.detach())
        slopes[~np.isfinite(slopes)] = 0.0  # a trajectory that meets this is refused for its energy
        return self._columns(found), slopes

    def _functions(self) -> list[LogDensity]:
        return [self.log_density] if self.log_likelihood is None else [self.log_density, self.log_likelihood]

    def _columns(self, found: list[Tensor]) -> Floats:
        parts = np.zeros((len(found[0]), 2))
        for at, value in enumerate(found):
            parts[:, at] = value.numpy()
        parts[~(parts < np.inf)] = -np.inf
        return parts

    def _checked(self, function: LogDensity, x: Tensor) -> Tensor:
        value = function(x)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            raise ModelError(
                f"{self.name}: for points of shape {tuple(x.shape)} the log density must have shape ({len(x)},), not "
                f"{tuple(getattr(value, 'shape', ()))}; sum over the last axis, as in -0.5 * (x**2).sum(-1)."
            )
        return value.double()
