"""How alike are two inputs? Covariance functions as values, with leading batch dimensions.

A covariance function maps x (..., n, d) and z (..., m, d) to a matrix (..., n, m). Its tensors have the batch's shape,
so that one value holds the covariance functions of many data sets, and are what a fit changes; what is a plain number
stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from anystep.errors import UsageError


class Positive(NamedTuple):
    """What a fit may change: positive numbers of the batch's shape and `own` dimensions more, and their range."""

    value: Tensor
    low: float
    high: float
    own: int = 0


@runtime_checkable
class Covariance(Protocol):
    """What a Gaussian process needs of a covariance function."""

    def __call__(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The matrix (..., n, m) between x (..., n, d) and z (..., m, d), by default x itself."""
        ...

    def diagonal(self, x: Tensor) -> Tensor:
        """The variances (..., n) at x."""
        ...

    def positives(self) -> Mapping[str, Positive]:
        """What can be fitted, by the field's name."""
        ...

    def with_(self, values: Mapping[str, Tensor]) -> Self:
        """The same covariance function with other values in the fields that `positives` named."""
        ...


@dataclass(frozen=True)
class Stationary:
    """Falls with the scaled distance |(x - z) / lengthscale|, from `variance` at zero.

    lengthscale: (..., d), one for each input (automatic relevance), or (..., 1), one for all. variance: (...). Both
    positive; `lengthscales` and `variances` are the ranges in which they are fitted.
    """

    lengthscale: Tensor
    variance: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))
    lengthscales: tuple[float, float] = (0.02, 50.0)
    variances: tuple[float, float] = (0.02, 50.0)

    def __post_init__(self) -> None:
        for name in ("lengthscale", "variance"):
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            if not bool((value > 0).all()):
                raise UsageError(f"{type(self).__name__}({name}={value.tolist()}): {name} is positive")
            object.__setattr__(self, name, value)
        if self.lengthscale.dim() == 0:
            object.__setattr__(self, "lengthscale", self.lengthscale[None])

    def __call__(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The matrix (..., n, m) between x (..., n, d) and z (..., m, d), by default x itself."""
        a = x / self.lengthscale[..., None, :]
        b = a if z is None else z / self.lengthscale[..., None, :]
        centre = a.mean(-2, keepdim=True).detach()  # |a|^2 - 2 ab + |b|^2 cancels least about the data's middle
        a, b = a - centre, b - centre
        apart = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :] - 2 * a @ b.mT
        return self.variance[..., None, None] * self.fall(apart.clamp_min(0.0))

    def diagonal(self, x: Tensor) -> Tensor:
        """The variances (..., n) at x: the same everywhere."""
        shape = torch.broadcast_shapes(x.shape[:-2], self.variance.shape)
        return self.variance[..., None].expand(*shape, x.shape[-2])

    def fall(self, apart: Tensor) -> Tensor:
        """The correlation at a squared scaled distance."""
        raise NotImplementedError

    def positives(self) -> dict[str, Positive]:
        """What can be fitted: the lengthscale and the variance."""
        return {
            "lengthscale": Positive(self.lengthscale, *self.lengthscales, own=1),
            "variance": Positive(self.variance, *self.variances),
        }

    def with_(self, values: Mapping[str, Tensor]) -> Self:
        """The same with other values in the fields that `positives` named."""
        changed: dict[str, Any] = dict(values)
        return replace(self, **changed)


@dataclass(frozen=True)
class RBF(Stationary):
    """exp(-r^2 / 2): infinitely smooth functions."""

    def fall(self, apart: Tensor) -> Tensor:
        """The correlation at a squared scaled distance."""
        return torch.exp(-0.5 * apart)


@dataclass(frozen=True)
class Matern(Stationary):
    """Matern's covariance with smoothness `nu`, 1.5 or 2.5: functions differentiable once or twice.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, equation 4.17.
    """

    nu: float = 2.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nu not in (1.5, 2.5):
            raise UsageError(f"Matern(nu={self.nu}): nu is 1.5 or 2.5")

    def fall(self, apart: Tensor) -> Tensor:
        """The correlation at a squared scaled distance."""
        r = math.sqrt(2 * self.nu) * torch.sqrt(apart + 1e-20)  # the root has no slope at zero
        return (1 + r) * torch.exp(-r) if self.nu == 1.5 else (1 + r + r * r / 3) * torch.exp(-r)
