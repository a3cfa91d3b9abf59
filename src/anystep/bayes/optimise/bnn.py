"""Bayesian neural networks as surrogates: Li, Rudner and Wilson, A Study of Bayesian Neural Network Surrogates for
Bayesian Optimization (ICLR 2024).

The weights' posterior is sampled by several chains for each function at once. What is believed is what the networks
compute: their weights have symmetries that no chain visits, so convergence is judged on `traces`, function values, and
never on weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from anystep.bayes.optimise.network import Network
from anystep.bayes.optimise.surrogates import Networks, descend

Target = Callable[[Tensor], tuple[Tensor, Tensor]]  # a log density (...) and its gradient (..., size)


class Inference(Protocol):
    """How weights are drawn from a density."""

    def __call__(self, target: Target, start: Tensor, generator: torch.Generator) -> Tensor:
        """Draws (draws, chains, *batch, size) of theta, from chains at start (chains, *batch, size); target is a
        log density up to a constant, with its gradient."""
        ...


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo (Neal, 2011), every chain with its own step size.

    The step size is adapted over `warm` transitions to accept a share `accept` (Robbins-Monro on its logarithm), and
    held from then on; trajectories have 1 to `leaps` steps, at random, so that no period is met. Leaves the density
    invariant exactly once the step is held; `draws` are kept, from a chain that tends to it.
    """

    warm: int = 24
    draws: int = 24
    leaps: int = 30
    accept: float = 0.8
    step: float = 0.02

    def __call__(self, target: Target, start: Tensor, generator: torch.Generator) -> Tensor:
        """Draws (draws, chains, *batch, size) of theta."""
        theta, (value, slope) = start, target(start)
        log_step = torch.full(start.shape[:-1], self.step).log()
        kept = []
        for i in range(self.warm + self.draws):
            leaps = int(torch.randint(1, self.leaps + 1, (), generator=generator))
            step = log_step.exp()[..., None]
            momentum = torch.randn(theta.shape, generator=generator)
            place, push = theta, slope
            energy = value - 0.5 * momentum.square().sum(-1)
            for _ in range(leaps):
                momentum = momentum + 0.5 * step * push
                place = place + step * momentum
                there, push = target(place)
                momentum = momentum + 0.5 * step * push
            log = torch.nan_to_num(there - 0.5 * momentum.square().sum(-1) - energy, nan=-torch.inf, posinf=-torch.inf)
            took = torch.rand(log.shape, generator=generator).log() < log
            theta, slope = (torch.where(took[..., None], new, old) for new, old in ((place, theta), (push, slope)))
            value = torch.where(took, there, value)
            if i < self.warm:
                log_step = log_step + (log.clamp_max(0.0).exp() - self.accept) / (1 + i) ** 0.6
            else:
                kept.append(theta)
        return torch.stack(kept)


@dataclass(frozen=True)
class SGHMC:
    """Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin, 2014), scale-adapted (Springenberg, 2016).

    No step is accepted or refused: the chain is biased by its step size. So few values need no minibatches: the slopes
    here are exact, and what is stochastic is the friction's noise. Over `warm` steps each weight's mass is adapted to
    the size of its slopes; then one of `thin` steps is kept.
    """

    warm: int = 150
    draws: int = 32
    thin: int = 10
    step: float = 0.03
    friction: float = 0.05

    def __call__(self, target: Target, start: Tensor, generator: torch.Generator) -> Tensor:
        """Draws (draws, chains, *batch, size) of theta."""
        theta, speed = start, torch.zeros_like(start)
        size, kept = torch.ones_like(start), []
        for i in range(self.warm + self.draws * self.thin):
            slope = target(theta)[1]
            if i < self.warm:
                size = size + (slope.square() - size) / (1 + min(i, 50))
            mass = 1 / (size.sqrt() + 1e-6)
            noise = torch.randn(theta.shape, generator=generator) * (2 * self.friction * self.step**2 * mass).sqrt()
            speed = (1 - self.friction) * speed + self.step**2 * mass * slope + noise
            theta = theta + speed
            if i >= self.warm and (i - self.warm) % self.thin == self.thin - 1:
                kept.append(theta)
        return torch.stack(kept)


@dataclass(frozen=True)
class BNNSurrogate:
    """A Bayesian neural network: weights drawn from their posterior, given values with noise of variance `noise`.

    Each of `chains` chains begins near a draw of its own: `updates` steps of Adam fit a draw of the prior to the values
    with fresh noise, held back by how far it moves (randomise, then optimise: Bardsley et al., 2014). Were the network
    linear in its weights this were the posterior; as it is, chains begin spread out and where the density is.
    """

    network: Network = field(default_factory=Network)
    inference: Inference = field(default_factory=HMC)
    chains: int = 4
    noise: float = 0.01
    updates: int = 100
    rate: float = 0.03

    def fit(self, x: Tensor, y: Tensor, seed: int = 0) -> Networks:
        """Networks drawn by every chain, as one sample."""
        return Networks(self.network, self.posterior(x, y, seed).flatten(0, 1))

    def traces(self, x: Tensor, y: Tensor, at: Tensor, seed: int = 0) -> Tensor:
        """Function values (draws, chains, *batch, m) at places (*batch, m, d), draw by draw: for diagnostics."""
        theta = self.posterior(x, y, seed)
        return Networks(self.network, theta.flatten(0, 1)).outputs(at).unflatten(0, theta.shape[:2])

    def posterior(self, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
        """Weights (draws, chains, *batch, size)."""
        generator = torch.Generator().manual_seed(seed)
        a, b = x.float(), y.float()

        def loss(theta: Tensor, wanted: Tensor, prior: Tensor) -> Tensor:
            misses = (self.network(theta, a) - wanted).square().sum() / self.noise
            return 0.5 * (misses + (theta - prior).square().sum())

        shape = (self.chains, *y.shape[:-1])
        prior = torch.randn(*shape, self.network.size(x.shape[-1]), generator=generator)
        wanted = b + self.noise**0.5 * torch.randn(*shape, y.shape[-1], generator=generator)
        start = prior.clone().requires_grad_()
        descend([start], lambda: loss(start, wanted, prior), self.updates, self.rate)
        return self.inference(
            lambda theta: self.network.log_density(theta, a, b, self.noise), start.detach(), generator
        )
