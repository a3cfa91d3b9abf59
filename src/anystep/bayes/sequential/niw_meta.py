"""NIW-Meta: a hierarchical Bayesian learner from episodes, whose inner steps leave no graph behind.

Every episode has network weights theta_i of its own, drawn from N(mu, Sigma); a normal-inverse-Wishart belief about
(mu, Sigma) is all that is learned. An episode's likelihood is replaced by a quadratic around a few steps of
stochastic gradient Langevin dynamics from the belief's centre, so its Gaussian q_i has a closed form in the belief,
through which one gradient of the episode's evidence bound goes. The quadratic is held constant: memory does not grow
with the steps.

Preserves: the best Gaussian q_i exactly where the quadratic is exact (linear-Gaussian episodes, quadratic given by
`least_squares`); for networks it is an approximation without a bound, whose gap the experiment measures as errors and
calibration.

Source: Kim and Hospedales, "A Hierarchical Bayesian Model for Few-Shot Meta Learning", ICLR 2024 (arXiv 2306.09702),
rebuilt from its abstract, the options that its repository names and conjugacy: step sizes, caps and the Gaussians of a
test episode are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.bayes.sequential.batched import MLP
from anystep.bayes.sequential.normal_inverse_wishart import Belief, Diagonal, Local
from anystep.errors import UsageError


class Likelihood(Protocol):
    """What a network's output says of an answer."""

    def logp(self, out: Tensor, y: Tensor) -> Tensor: ...
    def average(self, outs: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Noise:
    """Real answers y (batch, n, k), normal around the outputs with this standard deviation."""

    sd: float

    def logp(self, out: Tensor, y: Tensor) -> Tensor:
        """Log densities summed over points and outputs, (batch,)."""
        squares = ((out - y) / self.sd) ** 2 / 2 + math.log(self.sd) + math.log(2 * math.pi) / 2
        return -squares.flatten(1).sum(1)

    def average(self, outs: Tensor) -> Tensor:
        """The mean answer of samples (samples, batch, n, k)."""
        return outs.mean(0)


@dataclass(frozen=True)
class Classes:
    """Answers y (batch, n) that are classes, of logits (batch, n, classes)."""

    def logp(self, out: Tensor, y: Tensor) -> Tensor:
        """Log probabilities summed over points, (batch,)."""
        return out.log_softmax(-1).gather(-1, y[..., None])[..., 0].sum(1)

    def average(self, outs: Tensor) -> Tensor:
        """The mean probabilities of samples (samples, batch, n, classes)."""
        return F.softmax(outs, -1).mean(0)


@dataclass(frozen=True)
class Langevin:
    """How an episode's quadratic is found: `steps` of size `step` from the centre, of which the last `keep` are kept.

    theta += step / 2 gradient of the log-likelihood + heat sqrt(step) noise, a gradient no longer than `longest`. The
    quadratic's place is the mean of the kept ones, its precision the inverse of their variance, at most `cap`, for few
    iterates know it badly; with one kept it is `cap`. Raises UsageError for numbers that make no steps.
    """

    steps: int = 10
    step: float = 4e-4
    keep: int = 3
    cap: float = 1e4
    heat: float = 1.0
    longest: float = 1e3

    def __post_init__(self) -> None:
        if not (1 <= self.keep <= self.steps and min(self.step, self.cap, self.longest) > 0 and self.heat >= 0):
            raise UsageError(
                f"{self}: call Langevin(steps=10, step=4e-4, keep=3, cap=1e4), keep between 1 and steps and the others "
                "positive"
            )

    def __call__(self, start: Tensor, logp: Callable[[Tensor], Tensor], draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Place and precision, each (batch, dim), from start (batch, dim); they carry no graph."""
        theta, kept = start.detach(), []
        for at in range(self.steps):
            theta = theta.detach().requires_grad_()
            (slope,) = torch.autograd.grad(logp(theta).sum(), theta)
            slope = slope * (self.longest / slope.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp(max=1.0)
            noise = torch.randn(theta.shape, generator=draw) if self.heat else 0.0
            theta = theta.detach() + self.step / 2 * slope + self.heat * math.sqrt(self.step) * noise
            if at >= self.steps - self.keep:
                kept.append(theta)
        found = torch.stack(kept)
        if self.keep == 1:
            return theta, torch.full_like(theta, self.cap)
        return found.mean(0), (1 / found.var(0).clamp_min(1 / self.cap))


class NIWMeta:
    """The learner: `update` on batches of episodes, then `adapt` to a support set and `predict`.

    net: the network of every episode. likelihood: `Noise(sd)` or `Classes()`. episodes: how many will be seen in all,
    which is what one episode weighs against the prior. precision: where the belief's mean of 1 / Sigma starts.
    quadratic: finds an episode's quadratic, `Langevin()` unless told. rate, precision_rate: Adam's, of the centre and
    of the precisions' logarithms; precisions that learn fast outgrow the quadratic's and stop adaptation. scale: of the
    prior's V. seed: of the start and of all noise.

    Raises UsageError for numbers that are not positive, and for an episode that is not batch first.
    """

    def __init__(
        self,
        net: MLP,
        likelihood: Likelihood,
        episodes: int,
        *,
        precision: float = 100.0,
        quadratic: Langevin | None = None,
        rate: float = 1e-3,
        precision_rate: float = 3e-3,
        scale: float = 1e-2,
        seed: int = 0,
    ) -> None:
        if min(episodes, precision, rate, precision_rate, scale) <= 0:
            raise UsageError(
                f"NIWMeta(episodes={episodes}, precision={precision}, rate={rate}, precision_rate={precision_rate}, "
                f"scale={scale}): each is above zero; call NIWMeta(MLP((1, 40, 40, 1)), Noise(0.3), episodes=20_000)"
            )
        self.net, self.likelihood, self.episodes, self.scale = net, likelihood, episodes, scale
        self.quadratic = quadratic or Langevin()
        self.draw = torch.Generator().manual_seed(seed)
        start = net.start(self.draw)
        self.belief: Belief = Diagonal(start, torch.full_like(start, precision), episodes)
        centre, *rest = self.belief.parameters()
        groups = [{"params": [centre], "lr": rate}, {"params": rest, "lr": precision_rate}]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def adapt(self, x: Tensor, y: Tensor) -> Local:
        """The Gaussians of episodes with these points: x (batch, n, inputs), y as the likelihood takes it.

        Differentiable in the belief alone.
        """
        if x.ndim != 3 or y.shape[:2] != x.shape[:2] or not len(x):
            raise UsageError(
                f"adapt(x {tuple(x.shape)}, y {tuple(y.shape)}): episodes come batch first; call adapt(x, y) with x "
                f"(batch, n, {self.net.sizes[0]}) and y (batch, n, ...)"
            )
        start = self.belief.centre.expand(len(x), -1)
        at, precision = self.quadratic(start, lambda theta: self.likelihood.logp(self.net(theta, x), y), self.draw)
        return self.belief.local(at, precision)

    def loss(self, x: Tensor, y: Tensor, support: int) -> Tensor:
        """The negative evidence bound of an episode, a mean over the batch, with its share of the belief's own prior.

        The Gaussian is fitted to the first `support` points, which may be all, and held to all: any Gaussian gives a
        bound. That of a support set alone is what will be had of a new episode; that of all points is nearer the best.
        """
        local = self.adapt(x[:, :support], y[:, :support])
        noise = torch.randn(local.mean.shape, generator=self.draw)
        told = self.likelihood.logp(self.net(local.draw(noise), x), y)
        return (self.belief.divergence(local) - told).mean() + self.belief.from_prior(self.scale) / self.episodes

    def update(self, x: Tensor, y: Tensor, support: int) -> float:
        """One step of Adam on a batch of episodes, of which nothing is kept; returns the loss per point."""
        loss = self.loss(x, y, support) / x.shape[1]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def fit(self, batch: Callable[[], tuple[Tensor, Tensor, int]], updates: int) -> NIWMeta:
        """`updates` updates on fresh (x, y, support) of `batch()`; the rates fall over the second half."""
        rates = [group["lr"] for group in self.optimiser.param_groups]
        for at in range(updates):
            for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, 0.02 + 2 * (1 - at / updates))
            self.update(*batch())
        return self

    @torch.no_grad()
    def predict(self, local: Local, x: Tensor, samples: int = 10) -> Tensor:
        """The likelihood's average over `samples` networks of each episode's Gaussian, for x (batch, n, inputs)."""
        outs = [self.net(local.draw(torch.randn(local.mean.shape, generator=self.draw)), x) for _ in range(samples)]
        return self.likelihood.average(torch.stack(outs))
