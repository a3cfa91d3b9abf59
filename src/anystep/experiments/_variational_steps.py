"""Training steps written as programs beside the same steps by hand in torch, timed in turns.

By hand means torch's distributions, as in the programs, and Adam; both sides share their parameters and data.
"""

# torch's distributions have no types.
# mypy: disable-error-code="no-untyped-call,no-any-return"

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal

from anystep.bayes import vi
from anystep.bayes.vi import Enumerate, Sample, Score
from anystep.process import Floats

Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Pair:
    """One step two ways. draws: what `objective` is run on; by_hand gives as many numbers."""

    name: str
    objective: vi.expectations.Objective
    draws: int
    by_hand: Loss
    parameters: list[nn.Parameter]

    def ratios(self, repeats: int, warm: int = 20) -> Floats:
        """Processor time of a step as programs over that of the step by hand, in turns."""
        steps = [self._step(self._programs), self._step(self.by_hand)]
        for _ in range(warm):
            steps[0](), steps[1]()
        return np.array([_seconds(steps[0]) / _seconds(steps[1]) for _ in range(repeats)])

    def _programs(self) -> Tensor:
        return vi.machine.estimated(self.objective, self.draws)

    def _step(self, loss: Loss) -> Callable[[], None]:
        optimiser = torch.optim.Adam(self.parameters, 1e-4)

        def step() -> None:
            optimiser.zero_grad()
            (-loss().mean()).backward()
            optimiser.step()

        return step


def _seconds(step: Callable[[], None]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def pairs() -> Iterator[Pair]:
    """A correlated normal, a mixture with an enumerated choice, and a variational autoencoder three ways."""
    yield _normal()
    yield _mixture()
    yield from _autoencoder()


def _normal() -> Pair:
    mean, root, draws = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.tensor([[1.0, 0.0], [0.4, 0.7]])), 16
    prior, x = torch.tensor([[1.0, 0.5], [0.5, 2.0]]), torch.tensor([1.0, 2.0])

    def model() -> Any:
        z = yield Sample(MultivariateNormal(torch.zeros(2), prior), "z")
        yield Sample(MultivariateNormal(z, torch.eye(2)), "x")

    def guide() -> Any:
        yield Sample(MultivariateNormal(mean, scale_tril=root.tril()), "z")

    def by_hand() -> Tensor:
        q = MultivariateNormal(mean, scale_tril=root.tril())
        z = q.rsample(torch.Size([draws]))
        p = MultivariateNormal(torch.zeros(2), prior).log_prob(z) + MultivariateNormal(z, torch.eye(2)).log_prob(x)
        return p - q.log_prob(z)

    return Pair("normal", vi.elbo(vi.condition(model, {"x": x}), guide), draws, by_hand, [mean, root])


def _mixture() -> Pair:
    chance, places, x = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.zeros(2, 2)), torch.tensor(0.7)
    draws, both = 16, torch.tensor([[0.0], [1.0]])

    def where(c: Tensor) -> Normal:
        at = places[c.long()]
        return Normal(at[..., 0], at[..., 1].exp())

    def model() -> Any:
        c = yield Sample(Bernoulli(torch.tensor(0.3)), "c")
        z = yield Sample(Normal(2 * c - 1, 1.0), "z")
        yield Sample(Normal(z, 0.5), "x")

    def guide() -> Any:
        c = yield Sample(Bernoulli(logits=chance), "c", Enumerate())
        yield Sample(where(c), "z")

    def by_hand() -> Tensor:
        log_c, q = Bernoulli(logits=chance).log_prob(both), where(both).expand([2, draws])
        z = q.rsample()
        p = Bernoulli(torch.tensor(0.3)).log_prob(both) + Normal(2 * both - 1, 1.0).log_prob(z)
        return (log_c.exp() * (p + Normal(z, 0.5).log_prob(x) - log_c - q.log_prob(z))).sum(0)

    return Pair("mixture", vi.elbo(vi.condition(model, {"x": x}), guide), draws, by_hand, [chance, places])


def _autoencoder() -> Iterator[Pair]:
    """64 pictures of 64 pixels, one draw each, 8 latent numbers, 128 hidden."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 16))
        decoder = nn.Sequential(nn.Linear(8, 128), nn.Tanh(), nn.Linear(128, 64))
        x = (torch.rand(64, 64) < 0.3).float()
    weights = [*encoder.parameters(), *decoder.parameters()]

    def prior() -> Distribution:
        return Independent(Normal(torch.zeros(8), torch.ones(8)), 1)

    def pixels(z: Tensor) -> Distribution:
        return Independent(Bernoulli(logits=decoder(z)), 1)

    def code() -> Distribution:
        mean, log = encoder(x).chunk(2, -1)
        return Independent(Normal(mean, log.exp()), 1)

    def model() -> Any:
        z = yield Sample(prior(), "z")
        yield Sample(pixels(z), "x")

    def guide() -> Any:
        yield Sample(code(), "z")

    def elbo() -> Tensor:
        q = code()
        z = q.rsample()
        return prior().log_prob(z) + pixels(z).log_prob(x) - q.log_prob(z)

    def iwelbo() -> Tensor:
        q = code()
        z = q.rsample(torch.Size([10]))
        return torch.logsumexp(prior().log_prob(z) + pixels(z).log_prob(x) - q.log_prob(z), 0) - math.log(10)

    def score() -> Tensor:
        q = code()
        z = q.sample()
        log = q.log_prob(z)
        loss = prior().log_prob(z) + pixels(z).log_prob(x) - log
        return loss + loss.detach() * log

    seen = vi.condition(model, {"x": x})
    yield Pair("autoencoder, ELBO", vi.elbo(seen, guide), 64, elbo, weights)
    yield Pair("autoencoder, IWELBO of 10", vi.iwelbo(seen, guide, 10), 64, iwelbo, weights)
    yield Pair("autoencoder, score", vi.elbo(seen, vi.using(guide, Score())), 64, score, weights)
