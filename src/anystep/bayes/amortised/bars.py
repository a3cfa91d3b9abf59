"""The bar distribution: a density of any shape on the line, as masses of bars between fixed borders.

Source: Müller et al., "Transformers Can Do Bayesian Inference" (arXiv 2112.10510, ICLR 2022), there called the Riemann
distribution; the outer bars are half-normals, so that its support is the whole line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anystep.errors import UsageError

HALF = 0.6744897501960817  # the median of a half-normal of scale 1
ROOT = math.sqrt(2 / math.pi)  # its mean


class Bars(nn.Module):
    """Densities on the line from logits (..., bars), by softmax: a head without parameters of its own.

    Inside, a bar's mass is spread evenly. The first and the last fall away from their inner border as half-normals
    that leave half of their mass within their width. It integrates to one whatever the logits.

    borders: (bars + 1,), rising, at least two bars. Raises UsageError for others.
    """

    borders: Tensor

    def __init__(self, borders: Tensor) -> None:
        super().__init__()
        if borders.ndim != 1 or len(borders) < 3 or not bool((borders.diff() > 0).all()):
            raise UsageError(
                "Bars(borders): borders rise, (bars + 1,), two bars or more; Bars(torch.linspace(-3, 3, 101))."
            )
        self.register_buffer("borders", borders.float())

    @classmethod
    def of(cls, draws: Tensor, bars: int) -> Bars:
        """Bars of equal mass under what `draws` (n,) were drawn from, n at least 10 for each bar.

        The outer borders are the medians of the outer bars' masses, which is what a half-normal's width means here.
        """
        if draws.numel() < 10 * bars:
            raise UsageError(f"Bars.of({draws.numel()} draws, bars={bars}): needs 10 draws a bar, {10 * bars}.")
        levels = torch.arange(bars + 1, dtype=torch.float64) / bars
        levels[0], levels[-1] = 0.5 / bars, 1 - 0.5 / bars
        ordered = draws.detach().double().flatten().sort().values
        at = levels * (len(ordered) - 1)
        low = at.floor().long().clamp_max(len(ordered) - 2)
        return cls(torch.lerp(ordered[low], ordered[low + 1], at - low))

    @property
    def size(self) -> int:
        """How many logits."""
        return len(self.borders) - 1

    @property
    def widths(self) -> Tensor:
        return self.borders.diff()

    def log_prob(self, logits: Tensor, y: Tensor) -> Tensor:
        """Log density at y (...), any real number, of logits (..., bars): (...)."""
        bar = torch.bucketize(y.detach().contiguous(), self.borders[1:-1].contiguous(), right=True)
        wide, mass = self.widths, torch.log_softmax(logits, -1)
        log_mass = mass.gather(-1, bar[..., None])[..., 0]
        inside = -wide.log()[bar]
        first, last = bar == 0, bar == self.size - 1
        scale = torch.where(first, wide[0], wide[-1]) / HALF
        out = torch.where(first, self.borders[1] - y, y - self.borders[-2]).clamp_min(0) / scale
        tail = math.log(ROOT) - scale.log() - out**2 / 2
        return log_mass + torch.where(first | last, tail, inside)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value: (...)."""
        return logits.softmax(-1) @ self._moments()[0]

    def variance(self, logits: Tensor) -> Tensor:
        """(...), of the density itself, the widths of its bars included."""
        first, second = (logits.softmax(-1) @ moment for moment in self._moments())
        return second - first**2

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Of each bar: the means of y and of its square."""
        low, high = self.borders[:-1], self.borders[1:]
        first, second = (low + high) / 2, (low**2 + low * high + high**2) / 3
        for end, inner, sign in ((0, self.borders[1], -1.0), (-1, self.borders[-2], 1.0)):
            scale = self.widths[end] / HALF
            first[end] = inner + sign * scale * ROOT
            second[end] = inner**2 + 2 * sign * inner * scale * ROOT + scale**2
        return first, second

    def cdf(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mass below y (...): (...)."""
        masses = logits.double().softmax(-1)
        bar = torch.bucketize(y.detach().contiguous(), self.borders[1:-1].contiguous(), right=True)
        below = (masses.cumsum(-1) - masses).gather(-1, bar[..., None])[..., 0]
        own = masses.gather(-1, bar[..., None])[..., 0]
        share = ((y - self.borders[bar]) / self.widths[bar]).double()
        left = (y - self.borders[1]).double() * HALF / self.widths[0]
        right = (y - self.borders[-2]).double() * HALF / self.widths[-1]
        share = torch.where(bar == 0, 2 * torch.special.ndtr(left.clamp_max(0)), share)
        share = torch.where(bar == self.size - 1, 2 * torch.special.ndtr(right.clamp_min(0)) - 1, share)
        return below + own * share

    def quantile(self, logits: Tensor, level: Tensor) -> Tensor:
        """The y with mass `level` (...), in (0, 1), below it: (...)."""
        masses = logits.double().softmax(-1)
        edges = masses.cumsum(-1)
        level = level.double() * edges[..., -1]
        bar = (edges <= level[..., None]).sum(-1).clamp_max(self.size - 1)
        own = masses.gather(-1, bar[..., None])[..., 0].clamp_min(1e-300)
        share = ((level - (edges - masses).gather(-1, bar[..., None])[..., 0]) / own).clamp(0, 1)
        y = self.borders[bar] + share * self.widths[bar]
        tiny = 1e-300  # a level of 0 or 1 is far out, not infinite
        left = self.borders[1] + torch.special.ndtri(share.clamp_min(tiny) / 2) * self.widths[0] / HALF
        right = self.borders[-2] - torch.special.ndtri((1 - share).clamp_min(1e-16) / 2) * self.widths[-1] / HALF
        y = torch.where(bar == 0, left, y)
        return torch.where(bar == self.size - 1, right, y)

    def sample(self, logits: Tensor, n: int, draw: torch.Generator) -> Tensor:
        """n independent draws: (n, ...)."""
        level = torch.rand((n, *logits.shape[:-1]), generator=draw, dtype=torch.float64)
        return self.quantile(logits.expand(n, *logits.shape), level)
