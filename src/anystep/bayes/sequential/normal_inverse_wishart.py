"""A belief about the mean and covariance of a population of Gaussian vectors, and what it makes of one of them.

The population is theta_i ~ N(mu, Sigma). The belief q(mu, Sigma) is normal-inverse-Wishart: mu | Sigma ~ N(m, Sigma /
l), Sigma ~ IW(V, n), so the mean of Sigma^-1 is n V^-1, written P. Given a quadratic log-likelihood of theta_i, the
Gaussian q_i that minimises its share of the negative evidence bound has a closed form, exactly.

Source: Kim and Hospedales, "A Hierarchical Bayesian Model for Few-Shot Meta Learning", ICLR 2024 (arXiv 2306.09702);
the closed forms are conjugacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from anystep.errors import UsageError


@dataclass(frozen=True)
class Local:
    """Gaussians of a batch of episodes: mean (batch, d); spread (batch, d) of variances or (batch, d, d)."""

    mean: Tensor
    spread: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """A sample (batch, d) made of standard normal `noise` (batch, d), differentiable in mean and spread."""
        if self.spread.ndim == 2:
            return self.mean + self.spread.sqrt() * noise
        return self.mean + (torch.linalg.cholesky(self.spread) @ noise[..., None])[..., 0]


class Belief(Protocol):
    """What the learner asks of a belief about a population."""

    centre: Tensor

    def parameters(self) -> list[Tensor]: ...
    def local(self, at: Tensor, precision: Tensor) -> Local: ...
    def divergence(self, local: Local) -> Tensor: ...
    def from_prior(self, scale: float) -> Tensor: ...
    def prior(self) -> Local: ...


class Full:
    """One belief about a whole covariance matrix: centre m (d,), precision P = n V^-1 (d, d) by its Cholesky factor.

    episodes: how many the population has in all. The optimal counts are then known, l = 1 + episodes and
    n = d + 1 + episodes, and are not learned. precision: (d, d), where P starts. Raises UsageError where it is not
    positive definite.
    """

    def __init__(self, centre: Tensor, precision: Tensor, episodes: int) -> None:
        factor, wrong = torch.linalg.cholesky_ex(precision)
        if bool(wrong) or precision.shape != (len(centre), len(centre)):
            raise UsageError(
                f"Full(centre, precision): precision {tuple(precision.shape)} is no positive definite matrix; call "
                f"Full(centre, torch.eye({len(centre)}), episodes=1000)"
            )
        self.centre = centre.clone().requires_grad_()
        self.factor = (factor.tril(-1) + factor.diagonal().log().diag()).requires_grad_()
        self.least = len(centre) + 1
        self.counts = (1.0 + episodes, float(self.least + episodes))

    def parameters(self) -> list[Tensor]:
        """What is learned: centre and factor, leaves of the graph."""
        return [self.centre, self.factor]

    @property
    def precision(self) -> Tensor:
        """The mean of Sigma^-1, (d, d)."""
        low = self._low()
        return low @ low.T

    def _low(self) -> Tensor:
        return self.factor.tril(-1) + self.factor.diagonal().exp().diag()

    def local(self, at: Tensor, precision: Tensor) -> Local:
        """The best q_i (exactly) where log p(D_i | theta) = -(theta - at)' precision (theta - at) / 2 + constant.

        at (batch, d); precision (batch, d, d), or (batch, d) for a diagonal one.
        """
        a = torch.diag_embed(precision) if precision.ndim == 2 else precision
        p = self.precision
        spread = torch.linalg.inv(a + p)
        mean = spread @ (a @ at[..., None] + (p @ self.centre)[:, None])
        return Local(mean[..., 0], (spread + spread.mT) / 2)

    def divergence(self, local: Local) -> Tensor:
        """The mean over q(mu, Sigma) of KL(q_i || N(mu, Sigma)), (batch,), exactly."""
        d, (few, n) = len(self.centre), self.counts
        p, apart = self.precision, local.mean - self.centre
        away = ((p @ local.spread).diagonal(dim1=-2, dim2=-1).sum(-1) + ((apart @ p) * apart).sum(-1)) / 2
        logdet = d * math.log(n / 2) - 2 * self.factor.diagonal().sum() - _digammas(n, d)
        return away + (logdet - torch.linalg.slogdet(local.spread)[1] - d + d / few) / 2

    def from_prior(self, scale: float) -> Tensor:
        """KL(q || p) to the prior NIW of centre 0, V = scale I and the least counts, l = 1 and n = d + 1."""
        d, (few, n), least = len(self.centre), self.counts, float(self.least)
        p = self.precision
        logdet = d * math.log(n) - 2 * self.factor.diagonal().sum()  # of V
        normal = (d / few + d * math.log(few) - d + self.centre @ p @ self.centre) / 2
        wishart = (
            (n - least) / 2 * _digammas(n, d)
            - n * d / 2
            + scale * p.diagonal().sum() / 2
            + least / 2 * (logdet - d * math.log(scale))
            + float(torch.mvlgamma(torch.tensor(least / 2), d) - torch.mvlgamma(torch.tensor(n / 2), d))
        )
        return normal + wishart

    def prior(self) -> Local:
        """What is believed of a new episode, by the mean precision: one Gaussian, (1, d) and (1, d, d)."""
        return Local(self.centre.detach()[None], torch.linalg.inv(self.precision.detach())[None])


class Diagonal:
    """The same with independent coordinates, each with a one-dimensional belief: for networks, where d is large.

    centre (d,); precision: (d,), where the mean of 1 / Sigma starts; episodes as for `Full`, with n = 2 + episodes.
    """

    def __init__(self, centre: Tensor, precision: Tensor, episodes: int) -> None:
        if precision.shape != centre.shape or not bool((precision > 0).all()):
            raise UsageError(
                f"Diagonal(centre, precision): precision {tuple(precision.shape)} is not positive numbers beside "
                f"centre {tuple(centre.shape)}; call Diagonal(centre, torch.full({tuple(centre.shape)}, 100.0), 1000)"
            )
        self.centre = centre.clone().requires_grad_()
        self.logs = precision.log().requires_grad_()
        self.counts = (1.0 + episodes, 2.0 + episodes)

    def parameters(self) -> list[Tensor]:
        """What is learned: centre and the logarithms of the precisions, leaves of the graph."""
        return [self.centre, self.logs]

    @property
    def precision(self) -> Tensor:
        """The mean of 1 / Sigma, (d,)."""
        return self.logs.exp()

    def local(self, at: Tensor, precision: Tensor) -> Local:
        """As `Full.local`, precision (batch, d)."""
        p = self.precision
        spread = 1 / (precision + p)
        return Local(spread * (precision * at + p * self.centre), spread)

    def divergence(self, local: Local) -> Tensor:
        """As `Full.divergence`, a sum over coordinates."""
        few, n = self.counts
        away = self.precision * (local.spread + (local.mean - self.centre) ** 2)
        logs = math.log(n / 2) - _digammas(n, 1) - self.logs - local.spread.log()
        return (away + logs - 1 + 1 / few).sum(-1) / 2

    def from_prior(self, scale: float) -> Tensor:
        """As `Full.from_prior`, a sum over coordinates, each with V = scale, l = 1 and n = 2."""
        few, n = self.counts
        p = self.precision
        normal = (1 / few + math.log(few) - 1 + p * self.centre**2) / 2
        wishart = (
            (n - 2) / 2 * _digammas(n, 1)
            - n / 2
            + scale * p / 2
            + (math.log(n) - self.logs - math.log(scale))
            - math.lgamma(n / 2)
        )
        return (normal + wishart).sum()

    def prior(self) -> Local:
        """As `Full.prior`: (1, d) and (1, d)."""
        return Local(self.centre.detach()[None], 1 / self.precision.detach()[None])


def _digammas(n: float, d: int) -> float:
    """The sum of digamma((n + 1 - j) / 2) over j = 1 to d."""
    return float(torch.digamma((n - torch.arange(d, dtype=torch.float64)) / 2).sum())
