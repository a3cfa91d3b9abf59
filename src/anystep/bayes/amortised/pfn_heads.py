"""Heads for what is not a real number of unknown law: a label, or a Gaussian, which bars are compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Label(nn.Module):
    """A label, 0 or 1, from one logit: its log odds."""

    size = 1

    def log_prob(self, logits: Tensor, y: Tensor) -> Tensor:
        """Log mass of y (...), each 0 or 1, under logits (..., 1): (...)."""
        return F.logsigmoid(torch.where(y > 0.5, logits[..., 0], -logits[..., 0]))

    def mean(self, logits: Tensor) -> Tensor:
        """Probability of 1: (...)."""
        return logits[..., 0].sigmoid()


class Gaussian(nn.Module):
    """A normal density from two logits: its mean and the logarithm of its standard deviation."""

    size = 2

    def log_prob(self, logits: Tensor, y: Tensor) -> Tensor:
        """Log density at y (...) under logits (..., 2): (...)."""
        return -0.5 * (((y - logits[..., 0]) / logits[..., 1].exp()) ** 2 + math.log(2 * math.pi)) - logits[..., 1]

    def mean(self, logits: Tensor) -> Tensor:
        return logits[..., 0]

    def variance(self, logits: Tensor) -> Tensor:
        return (2 * logits[..., 1]).exp()

    def cdf(self, logits: Tensor, y: Tensor) -> Tensor:
        return torch.special.ndtr((y - logits[..., 0]) / logits[..., 1].exp())

    def quantile(self, logits: Tensor, level: Tensor) -> Tensor:
        """The y with mass `level` (...), in (0, 1), below it: (...)."""
        return logits[..., 0] + logits[..., 1].exp() * torch.special.ndtri(level)

    def sample(self, logits: Tensor, n: int, draw: torch.Generator) -> Tensor:
        """n independent draws: (n, ...)."""
        return logits[..., 0] + logits[..., 1].exp() * torch.randn((n, *logits.shape[:-1]), generator=draw)
