"""What a distribution transformer is trained on: priors of all kinds, and data that come of what they hold.

A problem is a frozen dataclass with what `Problem` names: its settings decide under which name a model is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from anystep.bayes.amortised.mixtures import GaussianMixture
from anystep.errors import UsageError

Rows = tuple[tuple[float, ...], ...]


class Problem(Protocol):
    """Draws priors, what they hold, and data. All is in the space of the mixtures: for a positive unknown, its log."""

    @property
    def size(self) -> int:
        """Dimensions of the unknown."""
        ...

    @property
    def sources(self) -> tuple[int, ...]:
        """Numbers in a datum, for each kind of datum."""
        ...

    def priors(self, n: int, components: int, generator: torch.Generator) -> GaussianMixture:
        """A batch of n priors, in float32."""
        ...

    def evolve(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(n, d) the unknowns when the data come, given what they were under the prior; x itself where they stay."""
        ...

    def observe(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """For each source (n, rows, numbers) data of the unknowns x (n, d); rows of NaN are no data."""
        ...


@dataclass(frozen=True)
class MixturePriors:
    """Mixtures of many places, widths and tilts.

    A mixture has a centre N(0, centre^2) and a size, log-uniform in `sizes`; its components lie around the centre,
    `apart` sizes away, with deviations log-uniform in `widths` sizes and any correlations; weights are Dirichlet(1).
    """

    centre: float = 1.0
    sizes: tuple[float, float] = (0.2, 1.2)
    apart: float = 1.0
    widths: tuple[float, float] = (0.3, 1.0)

    def draw(self, n: int, components: int, size: int, generator: torch.Generator) -> GaussianMixture:
        """n mixtures, in float32."""

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        def between(low: float, high: float, *shape: int) -> Tensor:
            return low * (high / low) ** torch.rand(*shape, generator=generator)

        overall = between(*self.sizes, n, 1, 1)
        means = self.centre * normal(n, 1, size) + self.apart * overall * normal(n, components, size)
        deviations = overall * between(*self.widths, n, components, size)
        tilted = normal(n, components, size, size).tril(-1) + torch.eye(size)
        scales = deviations[..., None] * tilted / tilted.norm(dim=-1, keepdim=True)
        logs = -torch.rand(n, components, generator=generator).clamp_min(1e-6).log()
        return GaussianMixture((logs / logs.sum(-1, keepdim=True)).log(), means, scales)


@dataclass(frozen=True)
class OnePrior:
    """Always the same mixture, as numbers: weights, means and covariances of its components."""

    weights: tuple[float, ...]
    means: Rows
    covariances: tuple[Rows, ...]

    def draw(self, n: int, components: int, size: int, generator: torch.Generator) -> GaussianMixture:
        """n times the same, in float32. UsageError where it has other components or dimensions."""
        found = GaussianMixture.of(self.weights, self.means, self.covariances).to(torch.float32)
        if (found.components, found.size) != (components, size):
            raise UsageError(f"OnePrior: {found.components} components in {found.size} dimensions, as the recipe says.")
        return found.where(torch.zeros(n, dtype=torch.bool), found)


def some(values: Tensor, generator: torch.Generator, least: int = 0) -> Tensor:
    """Leaves the first of the rows (n, rows, m), how many is uniform from `least` to all; the others become NaN."""
    n, rows, _ = values.shape
    count = torch.randint(least, rows + 1, (n, 1, 1), generator=generator)
    return values.masked_fill(torch.arange(rows)[:, None] >= count, torch.nan)


@dataclass(frozen=True)
class LinearGaussian:
    """y = A x + e, e ~ N(0, R), by one or several sensors; the exact posterior is `GaussianMixture.observed`.

    sensors: (A, R) each, as rows of numbers: A (m, d), R (m, m). most: data of a sensor in one update, at least 0.
    moves: (F, Q), where the unknown goes to F x + N(0, Q) before each update; None where it stays. given: its
    priors.
    """

    sensors: tuple[tuple[Rows, Rows], ...] = ((((1.0,),), ((1.0,),)),)
    most: int = 6
    moves: tuple[Rows, Rows] | None = None
    given: MixturePriors | OnePrior = MixturePriors()

    @property
    def size(self) -> int:
        return len(self.sensors[0][0][0])

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(len(matrix) for matrix, _ in self.sensors)

    def priors(self, n: int, components: int, generator: torch.Generator) -> GaussianMixture:
        return self.given.draw(n, components, self.size, generator)

    def evolve(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x if self.moves is None else linear(x, *self.moves, generator)

    def observe(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        repeated = x[:, None, :].expand(len(x), self.most, self.size)
        return tuple(some(linear(repeated, *sensor, generator), generator) for sensor in self.sensors)

    def exact(self, prior: GaussianMixture, data: tuple[Tensor, ...]) -> GaussianMixture:
        """The posterior of priors (n) given data (n, rows, m) of each sensor; in the prior's precision."""
        now = prior if self.moves is None else prior.moved(*self.moves)
        for (matrix, noise), values in zip(self.sensors, data, strict=True):
            for y in values.unbind(-2):
                there = ~y.isnan().any(-1)
                seen, _ = now.observed(matrix, noise, y.nan_to_num())
                now = now.where(there, seen)
        return now


@dataclass(frozen=True)
class UnknownNormal:
    """Draws of a normal law whose log variance is unknown, and with `mean` its mean as well: x = (mean, log variance).

    No prior here is conjugate, and the posterior leans: few draws leave large variances possible. most: draws in one
    update. given, own: priors, mixtures of `own` components, which are split into as many as the recipe has.
    """

    mean: bool = False
    most: int = 8
    own: int = 2
    given: MixturePriors | OnePrior = MixturePriors()

    @property
    def size(self) -> int:
        return 2 if self.mean else 1

    @property
    def sources(self) -> tuple[int, ...]:
        return (1,)

    def priors(self, n: int, components: int, generator: torch.Generator) -> GaussianMixture:
        return self.given.draw(n, self.own, self.size, generator).split(components)

    def evolve(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x

    def observe(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        noise = torch.randn(len(x), self.most, 1, generator=generator)
        middle = x[:, None, :1] if self.mean else 0.0
        return (some(middle + (0.5 * x[:, None, -1:]).exp() * noise, generator, least=1),)

    def log_likelihood(self, x: Tensor, data: tuple[Tensor, ...]) -> Tensor:
        """(..., n) log density of the data (n, rows, 1) at x (..., n, d)."""
        y, log_variance = data[0][..., 0], x[..., -1:]
        middle = x[..., :1] if self.mean else torch.zeros_like(x[..., :1])
        each = -0.5 * ((y - middle).square() * (-log_variance).exp() + log_variance + torch.tensor(2 * torch.pi).log())
        return each.nan_to_num(0.0).sum(-1)


def linear(x: Tensor, matrix: Rows, noise: Rows, generator: torch.Generator) -> Tensor:
    """A draw of matrix x + N(0, noise) for each x (..., d)."""
    a = torch.tensor(matrix, dtype=x.dtype)
    root = torch.linalg.cholesky(torch.tensor(noise, dtype=torch.float64)).to(x.dtype)
    drawn = torch.randn(*x.shape[:-1], len(root), generator=generator, dtype=x.dtype)
    return x @ a.mT + drawn @ root.mT
