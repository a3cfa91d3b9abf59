"""Hamiltonian Monte Carlo over the hyper-parameters of many small Gaussian processes at once."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anystep.bayes.amortised.priors import GPPrior
from anystep.bayes.mcmc import HMC, Target, sample
from anystep.experiments._gaussian_processes import conditional, normal
from anystep.process import Floats

CHAINS, BURN, STEP, LEAPS = 4, 60, 0.3, 4  # chosen on other datasets


@dataclass(frozen=True)
class Sampled:
    """log_density: (sets,) mean log predictive density of the queries. ess: (sets,), the least of the three
    hyper-parameters' effective sizes. seconds: of processor a dataset. gradients: a chain's."""

    log_density: Floats
    ess: Floats
    seconds: float
    gradients: int


def sampled(prior: GPPrior, x: Tensor, y: Tensor, n: int, draws: int, seed: int) -> Sampled:
    """`draws` of each of four chains a dataset, and what they predict of the points after the first n."""
    sets, began = len(x), time.process_time()
    told, values = x[:, :n].double(), y[:, :n].double()

    def log_density(at: Tensor) -> Tensor:
        # A chain's last coordinate names its dataset; nothing moves it.
        which = at[:, 3].detach().round().long()
        _, _, evidence = conditional(prior, told[which], values[which], told[which, :1], at[:, :3])
        return evidence - 0.5 * at[:, :3].square().sum(-1)

    rng = np.random.default_rng(seed)
    names = np.repeat(np.arange(sets, dtype=np.float64), CHAINS)[:, None]
    start = np.concatenate([rng.standard_normal((sets * CHAINS, 3)), names], 1)
    kernel = HMC(
        Target(log_density, 4), STEP, LEAPS, scale=np.array([1.0, 1.0, 1.0, 0.0]), jitter=0.3, start=lambda _: start
    )
    chains = sample(kernel, draws, sets * CHAINS, seed, burn=BURN)
    found = chains.position.reshape(sets, CHAINS * draws, 4)[:, :, :3]
    density = torch.stack([_predicted(prior, *each, n) for each in zip(x, y, torch.from_numpy(found), strict=True)])
    seconds = (time.process_time() - began) / sets
    by_set = chains.position.reshape(sets, CHAINS, draws, 4)[..., :3]
    ess = np.array([replace(chains, position=position).ess().min() for position in by_set])
    return Sampled(density.numpy(), ess, seconds, LEAPS * (BURN + draws))


def _predicted(prior: GPPrior, x: Tensor, y: Tensor, told: Tensor, n: int) -> Tensor:
    """The mean over queries of the log of the mean over draws (k, 3) of their densities."""
    mean, variance, _ = conditional(prior, x[None, :n], y[None, :n], x[None, n:], told)
    return (normal(y[n:].double(), mean, variance).logsumexp(0) - math.log(len(told))).mean()
