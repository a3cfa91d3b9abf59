"""Normal laws of unknown mean and log variance under mixture priors: posteriors by quadrature and by Markov chains."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anystep.bayes import GaussianMixture, UnknownNormal, mcmc
from anystep.process import Floats

DEEP = 25.0  # nats below the top of a density, where its tails are cut


@dataclass(frozen=True)
class Task:
    """Priors (n), data of each, and data (n, later) that come later of the same unknowns."""

    problem: UnknownNormal
    prior: GaussianMixture
    data: tuple[Tensor, ...]
    later: Tensor

    def __len__(self) -> int:
        return len(self.later)

    def first(self, n: int) -> Task:
        """The first n of them."""
        return replace(self, prior=_first(self.prior, n), data=(self.data[0][:n],), later=self.later[:n])

    def log_joint(self, x: Tensor) -> Tensor:
        """(..., n) at x (..., n, 2): prior times likelihood."""
        return self.prior.log_density(x) + self.problem.log_likelihood(x, self.data)


def _first(mixture: GaussianMixture, n: int) -> GaussianMixture:
    return GaussianMixture(mixture.logs[:n], mixture.means[:n], mixture.scales[:n])


def tasks(problem: UnknownNormal, n: int, seed: int, later: int = 4) -> Task:
    """n problems as in training."""
    draw = torch.Generator().manual_seed(seed)
    prior = problem.priors(n, problem.own, draw)
    x = prior.sample(1, draw)[0]
    data = problem.observe(x, draw)
    after = x[:, :1] + (0.5 * x[:, 1:]).exp() * torch.randn(n, later, generator=draw)
    return Task(problem, prior.to(torch.float64), (data[0].double(),), after.double())


@dataclass(frozen=True)
class Grid:
    """Posteriors on grids of their own: points (m, n, 2), log masses (m, n), log area of a cell (n,)."""

    points: Tensor
    logs: Tensor
    area: Tensor

    def predicts(self, later: Tensor) -> Floats:
        """(n,) mean log density of later data (n, later)."""
        return _predicted(self.points, self.logs, later)

    def gaussian(self) -> GaussianMixture:
        """The normal law of each posterior's mean and covariance: of all normal laws the nearest."""
        mass = self.logs.exp()[..., None]
        mean = (mass * self.points).sum(0)
        off = self.points - mean
        covariance = torch.einsum("mn,mni,mnj->nij", mass[..., 0], off, off)
        return GaussianMixture(
            torch.zeros(len(mean), 1).double(), mean[:, None], torch.linalg.cholesky(covariance)[:, None]
        )


def posteriors(task: Task, coarse: int = 60, fine: int = 100) -> Grid:
    """By a coarse grid over the prior, then a fine one where the posterior is."""
    prior = task.prior
    reach = 6 * prior.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    low, high = (prior.means - reach).amin(1), (prior.means + reach).amax(1)
    for cells in (coarse, coarse, fine):
        step = (high - low) / cells
        at = torch.cartesian_prod(*(torch.arange(cells).double() + 0.5,) * 2)[:, None]
        points = low + at * step
        logs = torch.cat([task.log_joint(block) for block in torch.split(points, 500)])
        there = (logs > logs.amax(0) - DEEP)[..., None]
        low = torch.where(there, points, torch.inf).amin(0) - step
        high = torch.where(there, points, -torch.inf).amax(0) + step
    return Grid(points, logs.log_softmax(0), step.log().sum(-1))


def divergences(exact: Grid, said: GaussianMixture) -> Floats:
    """(n,) divergences of mixtures from the posteriors."""
    q = torch.cat([said.log_density(block) for block in torch.split(exact.points, 500)])
    return (exact.logs.exp() * (exact.logs - exact.area - q)).sum(0).numpy()


def from_mixtures(exact: Grid, said: GaussianMixture, later: Tensor) -> Floats:
    """What mixtures predict, by quadrature on the same grids; what of them lies outside counts for nothing."""
    q = torch.cat([said.log_density(block) for block in torch.split(exact.points, 500)]) + exact.area
    return _predicted(exact.points, q, later)


def _predicted(points: Tensor, logs: Tensor, later: Tensor) -> Floats:
    """Points (m, n, 2) with log masses (m, n): mean log density of each of (n, later) data by itself."""
    middle, log_variance = points.unbind(-1)
    found = [
        (logs - 0.5 * ((y - middle).square() * (-log_variance).exp() + log_variance + np.log(2 * np.pi))).logsumexp(0)
        for y in later.unbind(-1)
    ]
    return torch.stack(found).mean(0).numpy()


@dataclass(frozen=True)
class Drawn:
    """What long chains said: (n,) log density of later data, seconds a problem, and the least effective samples."""

    predicts: Floats
    seconds: float
    effective: float


def chains(task: Task, exact: Grid, long: int, seed: int, each: int = 4) -> Drawn:
    """Hamiltonian Monte Carlo on all problems at once: row i of the batch is a chain of problem i // each.

    It moves in coordinates where the posterior has mean 0 and covariance 1, known from quadrature and not charged.
    """
    round_ = exact.gaussian()
    rows = torch.arange(len(task)).repeat_interleave(each)
    mean, scale = round_.means[rows, 0], round_.scales[rows, 0]
    prior = GaussianMixture(task.prior.logs[rows], task.prior.means[rows], task.prior.scales[rows])
    wide = replace(task, prior=prior, data=(task.data[0][rows],), later=task.later[rows])

    def back(u: Tensor) -> Tensor:
        return mean + (scale @ u[..., None])[..., 0]

    target = mcmc.Target(lambda u: wide.log_joint(back(u)), 2)
    start = np.random.default_rng(seed).standard_normal((len(rows), 2))
    began = time.process_time()
    found = mcmc.sample(mcmc.HMC(target, 0.5, 4, jitter=0.2, start=start), long, len(rows), seed, burn=long // 5)
    took = (time.process_time() - began) / len(task)
    x = back(torch.from_numpy(found.position).movedim(0, 1)).reshape(long, len(task), each, 2)
    points = x.movedim(2, 1).reshape(long * each, len(task), 2)
    logs = torch.full(points.shape[:2], -np.log(len(points)), dtype=torch.float64)
    of_one = (replace(found, position=found.position[i : i + each]) for i in range(0, len(rows), each))
    effective = min(float(one.ess().min()) for one in of_one)
    return Drawn(_predicted(points, logs, task.later), took, effective)


def seconds(call: Callable[[], object], times: int = 5) -> float:
    """Seconds of processor of a call: the median of several."""
    found = []
    for _ in range(times):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return float(np.median(found))
