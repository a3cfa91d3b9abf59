"""What might the function be, given its values so far? One small contract, and surrogates that need no sampler.

A surrogate is a value; `fit` gives its belief about one function or, with leading batch dimensions, about many. Inputs
are expected about zero with unit spread, and so are values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from anystep.bayes.covariance import Matern
from anystep.bayes.gaussian_process import GaussianProcess, Posterior, fit
from anystep.bayes.optimise.network import InfiniteWidth, Network


class Belief(Protocol):
    """Which functions are still possible. `Posterior` of a Gaussian process is one."""

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (..., m) of the function at x (..., m, d)."""
        ...

    def sample(self, x: Tensor, draws: int, seed: int = 0) -> Tensor:
        """Joint draws (draws, ..., m) of the function at x (..., m, d), which bend smoothly with x."""
        ...


class Surrogate(Protocol):
    """What Bayesian optimisation needs of a model."""

    def fit(self, x: Tensor, y: Tensor, seed: int = 0) -> Belief:
        """What is believed after values y (*batch, n) at x (*batch, n, d)."""
        ...


@dataclass(frozen=True)
class GPSurrogate:
    """A Gaussian process with a Matern 5/2 covariance whose hyper-parameters maximise the evidence.

    relevance: one lengthscale for each input, else one for all.
    """

    nu: float = 2.5
    relevance: bool = True
    restarts: int = 4
    updates: int = 60

    def fit(self, x: Tensor, y: Tensor, seed: int = 0) -> Posterior:
        """The posterior at the best hyper-parameters."""
        start = Matern(torch.ones(x.shape[-1] if self.relevance else 1), nu=self.nu)
        return fit(x, y, start, restarts=self.restarts, updates=self.updates, seed=seed).given(x, y)


@dataclass(frozen=True)
class InfiniteWidthSurrogate:
    """An infinitely wide Bayesian network: a Gaussian process whose covariance is fixed; noise and mean are fitted."""

    kernel: InfiniteWidth = field(default_factory=InfiniteWidth)
    updates: int = 30

    def fit(self, x: Tensor, y: Tensor, seed: int = 0) -> Posterior:
        """The posterior at the best noise and mean."""
        return fit(x, y, self.kernel, restarts=2, updates=self.updates, seed=seed).given(x, y)


@dataclass(frozen=True, eq=False)
class Networks:
    """Belief held as networks: theta (draws, *batch, size), each a possible function, all as likely."""

    network: Network
    theta: Tensor

    def outputs(self, x: Tensor) -> Tensor:
        """Every network's outputs (draws, ..., m) at x (..., m, d)."""
        batch = self.theta.dim() - 2
        extra = x.dim() - 2 - batch
        points = x.to(self.theta.dtype)
        flat = points.movedim(tuple(range(extra)), tuple(range(batch, batch + extra))).flatten(batch, batch + extra)
        out = self.network(self.theta, flat).unflatten(-1, (*x.shape[:extra], x.shape[-2]))
        return out.movedim(tuple(range(1 + batch, 1 + batch + extra)), tuple(range(1, 1 + extra))).double()

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (..., m) over the networks."""
        out = self.outputs(x)
        return out.mean(0), out.var(0)

    def sample(self, x: Tensor, draws: int, seed: int = 0) -> Tensor:
        """The outputs of `draws` of the networks, no one twice before all were drawn once."""
        held = len(self.theta)
        generator = torch.Generator().manual_seed(seed)
        which = torch.cat([torch.randperm(held, generator=generator) for _ in range(-(-draws // held))])[:draws]
        return self.outputs(x) if draws == held else Networks(self.network, self.theta[which]).outputs(x)


@dataclass(frozen=True, eq=False)
class FewNetworks(Networks):
    """Belief held as so few networks that none may lie below the best value: read as a normal with their moments."""

    def sample(self, x: Tensor, draws: int, seed: int = 0) -> Tensor:
        """Joint normal draws with the networks' mean and covariance."""
        out = self.outputs(x)
        generator = torch.Generator().manual_seed(seed)
        mix = torch.randn(draws, len(out), generator=generator, dtype=out.dtype) / (len(out) - 1) ** 0.5
        return out.mean(0) + torch.tensordot(mix, out - out.mean(0), 1)


@dataclass(frozen=True)
class EnsembleSurrogate:
    """Networks fitted from different starts on different subsets of the data: Lakshminarayanan et al. (2017).

    Each maximises its posterior density, with values' noise of variance `noise`. It preserves nothing: how far members
    differ is not a posterior.
    """

    network: Network = field(default_factory=Network)
    members: int = 10
    share: float = 0.85
    noise: float = 0.01
    updates: int = 200
    rate: float = 0.03

    def fit(self, x: Tensor, y: Tensor, seed: int = 0) -> FewNetworks:
        """The members after `updates` steps of Adam."""
        generator = torch.Generator().manual_seed(seed)
        a, b = x.float(), y.float()
        shape = (self.members, *[1] * (y.dim() - 1))
        theta = torch.randn(*shape, self.network.size(x.shape[-1]), generator=generator)
        theta = theta.repeat(1, *y.shape[:-1], 1).requires_grad_()
        chosen = (torch.rand(*shape, y.shape[-1], generator=generator) < self.share).float()
        descend([theta], lambda: self._loss(theta, a, b, chosen), self.updates, self.rate)
        return FewNetworks(self.network, theta.detach())

    def _loss(self, theta: Tensor, x: Tensor, y: Tensor, chosen: Tensor) -> Tensor:
        misses = (chosen * (self.network(theta, x) - y).square()).sum() / self.noise
        return 0.5 * (misses + theta.square().sum())


@dataclass(frozen=True, eq=False)
class OnFeatures:
    """A Gaussian process on a network's features."""

    network: Network
    theta: Tensor
    posterior: Posterior

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (..., m) of the function at x (..., m, d)."""
        return self.posterior.predict(self.network.features(self.theta, x))

    def sample(self, x: Tensor, draws: int, seed: int = 0) -> Tensor:
        """Joint draws (draws, ..., m) of the function at x (..., m, d)."""
        return self.posterior.sample(self.network.features(self.theta, x), draws, seed)


@dataclass(frozen=True)
class DeepKernelSurrogate:
    """A Gaussian process on a network's last hidden layer, both fitted by the evidence: Wilson et al. (2016).

    The weights keep their prior, or 40 values would be fitted by any features.
    """

    network: Network = field(default_factory=Network)
    updates: int = 150
    rate: float = 0.03

    def fit(self, x: Tensor, y: Tensor, seed: int = 0) -> OnFeatures:
        """The process after `updates` steps of Adam on all of it."""
        batch, generator = y.shape[:-1], torch.Generator().manual_seed(seed)
        theta = torch.randn(self.network.size(x.shape[-1]), generator=generator, dtype=torch.float64)
        theta = theta.repeat(*batch, 1).requires_grad_()
        logs = torch.tensor([1.0, 0.0, -4.0], dtype=torch.float64).repeat(*batch, 1).requires_grad_()

        def posterior() -> Posterior:
            length, variance, noise = logs.exp().unbind(-1)
            process = GaussianProcess(Matern(length[..., None], variance), noise + 1e-6)
            return process.given(self.network.features(theta, x), y).centred()

        descend(
            [theta, logs], lambda: 0.5 * theta.square().sum() - posterior().log_evidence.sum(), self.updates, self.rate
        )
        with torch.no_grad():
            return OnFeatures(self.network, theta.detach(), posterior())


def descend(what: list[Tensor], loss, updates: int, rate: float) -> None:
    """Adam, with a rate that falls to nothing. It changes each number by its own slopes: batches do not meet."""
    optimiser = torch.optim.Adam(what, rate)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = rate * (1 - update / updates)
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
