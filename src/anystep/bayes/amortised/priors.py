"""Priors over datasets, as samplers: what a prior-fitted network learns from. No density is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from anystep.errors import UsageError


class Prior(Protocol):
    """A frozen dataclass that draws datasets, all points of a set exchangeable.

    features: of a point. classes: 2 where y is a label, 0 or 1; 0 where it is a number. centre, spread: of features.
    """

    @property
    def features(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def centre(self) -> float: ...
    @property
    def spread(self) -> float: ...

    def draw(self, sets: int, points: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (sets, points, features) and y (sets, points), float32."""
        ...


@dataclass(frozen=True)
class GPPrior:
    """Noisy draws of a Gaussian process with a squared-exponential kernel, at uniform points of the unit cube.

    lengthscale, outputscale, noise: each (median, spread): log-normal over datasets with `spread` the standard
    deviation of its logarithm; spread 0 fixes it. outputscale and noise are variances, as in
    k(a, b) = outputscale exp(-|a - b|^2 / (2 lengthscale^2)) + noise [a is b].

    Raises UsageError for a median that is not above 0, a spread below 0 and features below 1.
    """

    features: int = 1
    lengthscale: tuple[float, float] = (0.2, 0.0)
    outputscale: tuple[float, float] = (1.0, 0.0)
    noise: tuple[float, float] = (0.04, 0.0)
    classes: ClassVar[int] = 0
    centre: ClassVar[float] = 0.5
    spread: ClassVar[float] = math.sqrt(1 / 12)

    def __post_init__(self) -> None:
        for name in ("lengthscale", "outputscale", "noise"):
            median, spread = getattr(self, name)
            if not (median > 0 and spread >= 0):
                raise UsageError(f"GPPrior({name}={(median, spread)}): (median, spread), as in {name}=(0.2, 0.5).")
        if self.features < 1:
            raise UsageError(f"GPPrior(features={self.features}): one or more; GPPrior(features=2).")

    def draw(self, sets: int, points: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (sets, points, features) in [0, 1] and y (sets, points)."""
        x = torch.rand((sets, points, self.features), generator=draw)
        return x, self.draw_at(x, draw)

    def draw_at(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """y (sets, points) at given x (sets, points, features), with hyper-parameters of their own for each set."""
        length, scale, noise = (
            m * torch.exp(s * torch.randn((len(x), 1, 1), generator=draw, dtype=torch.float64))
            for m, s in (self.lengthscale, self.outputscale, self.noise)
        )
        x = x.double()
        gaps = (x[:, :, None] - x[:, None]).square().sum(-1)
        eye = torch.eye(x.shape[1], dtype=torch.float64)
        root = torch.linalg.cholesky(scale * torch.exp(-gaps / (2 * length**2)) + (noise + 1e-9) * eye)
        return (root @ torch.randn((*x.shape[:2], 1), generator=draw, dtype=torch.float64))[..., 0].float()


@dataclass(frozen=True)
class TabularPrior:
    """Two classes of points that look like principal components: small tables, and images by their first components.

    A set's points lie in 2 to `clusters` clouds, mostly few, in 2 to `features` dimensions (the others are 0) whose
    spreads fall as a power of their number. A random network of up to two tanh layers scores each point, pulled by a
    random share towards its cloud's centre: pulled wholly, classes are clouds (as in discriminant analysis), not at
    all, they meet at a surface (as in regression). A label is 1 with log odds of the score above its mean over the
    set, over a random temperature. Mean squares of all features over a set are 1 on average. Raises UsageError for
    fewer than 2 features or clusters.
    """

    features: int = 10
    clusters: int = 6
    width: int = 16
    classes: ClassVar[int] = 2
    centre: ClassVar[float] = 0.0
    spread: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if self.features < 2 or self.clusters < 2 or self.width < 1:
            raise UsageError(f"{self}: two or more features and clusters; TabularPrior(features=10, clusters=6).")

    def draw(self, sets: int, points: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (sets, points, features) and labels y (sets, points), 0.0 or 1.0."""
        x, pulled = self._points(sets, points, draw)
        score = self._scores(pulled, draw)
        score = score - score.mean(1, keepdim=True)
        heat = 0.01 * 50 ** torch.rand((sets, 1), generator=draw)  # from 0.01 to 0.5 of the score's spread
        odds = score / (heat * score.std(1, keepdim=True).clamp_min(1e-6))
        return x, (torch.rand((sets, points), generator=draw) < odds.sigmoid()).float()

    def _points(self, sets: int, points: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points, and where they stand when pulled towards the centres of their clouds."""
        d = self.features
        used = torch.randint(2, d + 1, (sets, 1, 1), generator=draw)
        steep = 1.5 * torch.rand((sets, 1, 1), generator=draw)
        place = torch.arange(d).float()
        spreads = torch.where(place < used, (1 + place) ** -steep, 0.0)
        clouds = 2 + ((self.clusters - 1) * torch.rand((sets, 1), generator=draw) ** 2).long()  # mostly few
        cloud = (torch.rand((sets, points), generator=draw) * clouds).long()
        centres = torch.randn((sets, self.clusters, d), generator=draw) * spreads
        centres = centres.gather(1, cloud[..., None].expand(-1, -1, d))
        mixed = torch.eye(d) + torch.randn((sets, d, d), generator=draw) / math.sqrt(d)
        thick = 1.5 * torch.rand((sets, 1, 1), generator=draw)
        around = thick * (torch.randn((sets, points, d), generator=draw) @ mixed) * spreads
        pull = torch.rand((sets, 1, 1), generator=draw).mul(1.5).sub(0.25).clamp(0, 1)  # 0 or 1 a third of the time
        x = centres + around
        x, pulled = x - x.mean(1, keepdim=True), centres + pull * around
        unit = x.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-6)
        return x / unit, pulled / unit

    def _scores(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """A random network's value at each point: linear, of one layer or of two, a third of the sets each."""
        sets, _, d = x.shape

        def weights(inputs: int, outputs: int) -> Tensor:
            return torch.randn((sets, inputs, outputs), generator=draw) / math.sqrt(inputs)

        def bent(h: Tensor) -> Tensor:
            return torch.tanh(gain * (h @ weights(h.shape[-1], self.width) + weights(1, self.width)))

        gain = 2.0 * torch.rand((sets, 1, 1), generator=draw) + 0.5
        once = bent(x)
        twice = bent(once)
        values = torch.stack([x @ weights(d, 1), once @ weights(self.width, 1), twice @ weights(self.width, 1)])
        depth = torch.randint(0, 3, (sets,), generator=draw)
        return values[depth, torch.arange(sets), :, 0]
