"""Which functions are still possible, given noisy values of one? Exact Gaussian-process regression, batch first.

Rasmussen and Williams, Gaussian Processes for Machine Learning, algorithm 2.1. Every tensor may have leading batch
dimensions, so that many data sets (or hyper-parameters) are one call. All is float64: a covariance matrix of smooth
functions has no digits to spare.

What is preserved: prediction, evidence and draws are exact given the hyper-parameters, up to rounding and the `jitter`
that draws add to a covariance: 1e-9 of the prior variance, more where rounding needs it. `fit` chooses the
hyper-parameters by the evidence, and the posterior then ignores that they are uncertain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.bayes.covariance import Covariance, Positive
from anystep.errors import UsageError

JITTER = 1e-9
NOISES = (1e-6, 1.0)


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A constant `mean` plus functions with covariance `kernel`, seen with noise of variance `noise`.

    mean, noise: numbers or tensors of the batch's shape. Raises UsageError where the noise is negative.
    """

    kernel: Covariance
    noise: Tensor | float = 1e-6
    mean: Tensor | float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise", "mean"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        if not bool((self._noise >= 0).all()):
            raise UsageError(f"GaussianProcess(noise={self._noise.tolist()}): noise is a variance, not negative")

    @property
    def _noise(self) -> Tensor:
        return torch.as_tensor(self.noise)

    @property
    def _mean(self) -> Tensor:
        return torch.as_tensor(self.mean)

    def given(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Posterior:
        """The posterior, given values y (..., n) at x (..., n, d). n may be 0: then it is the prior.

        Raises UsageError where the shapes do not match, a value is not finite, or the covariance is not positive.
        """
        a, b = _doubles(x), _doubles(y)
        if a.dim() < 2 or b.dim() < 1 or a.shape[-2] != b.shape[-1]:
            raise UsageError(f"given(x of {tuple(a.shape)}, y of {tuple(b.shape)}): x is (..., n, d) and y (..., n)")
        if not bool(torch.isfinite(b).all() and torch.isfinite(a).all()):
            raise UsageError("given(x, y): every input and value is finite; leave out the rows that are not")
        k = self.kernel(a)
        k = k + self._noise[..., None, None] * torch.eye(a.shape[-2], dtype=k.dtype)
        factor, failed = torch.linalg.cholesky_ex(k)
        if bool(failed.any()):
            raise UsageError("given(x, y): the covariance is singular; raise GaussianProcess(noise=1e-6)")
        return Posterior(self, a, b, factor)

    def log_evidence(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Tensor:
        """Log marginal likelihood (...) of values y (..., n) at x (..., n, d)."""
        return self.given(x, y).log_evidence

    def sample(self, x: ArrayLike | Tensor, draws: int, seed: int = 0) -> Tensor:
        """Joint draws (draws, ..., m) of the function at x (..., m, d), from the prior."""
        a = _doubles(x)
        mean = self._mean[..., None].expand(torch.broadcast_shapes(a.shape[:-1], (*self._mean.shape, 1)))
        return joint(mean, self.kernel(a), self.kernel.diagonal(a).amax(-1), draws, seed)


@dataclass(frozen=True, eq=False)
class Posterior:
    """A Gaussian process given values y (..., n) at x (..., n, d); `factor` is the Cholesky factor of K + noise."""

    process: GaussianProcess
    x: Tensor
    y: Tensor
    factor: Tensor

    @cached_property
    def _white(self) -> Tensor:
        """L^-1 (y - mean), (..., n, 1)."""
        rest = (self.y - self.process._mean[..., None])[..., None]
        return torch.linalg.solve_triangular(self.factor, rest, upper=False)

    @property
    def log_evidence(self) -> Tensor:
        """Log marginal likelihood (...) of the values, noise included."""
        fit = -0.5 * self._white.square().sum((-2, -1))
        size = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return fit - size - 0.5 * self.y.shape[-1] * math.log(2 * math.pi)

    def centred(self) -> Posterior:
        """The same with the mean at which the evidence is highest, by generalised least squares."""
        ones = torch.linalg.solve_triangular(self.factor, torch.ones_like(self.y)[..., None], upper=False)
        best = self.process._mean + (ones * self._white).sum((-2, -1)) / ones.square().sum((-2, -1))
        return replace(self, process=replace(self.process, mean=best))

    def predict(self, x: ArrayLike | Tensor, noisy: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and variance, (..., m) each, at x (..., m, d): of the function, or if `noisy` of a value seen there."""
        a = _doubles(x)
        mean, reach = self._mean_and_reach(a)
        variance = (self.process.kernel.diagonal(a) - reach.square().sum(-2)).clamp_min(0.0)
        return mean, variance + (self.process._noise[..., None] if noisy else 0.0)

    def covariance(self, x: ArrayLike | Tensor) -> Tensor:
        """Covariance matrix (..., m, m) of the function at x (..., m, d)."""
        a = _doubles(x)
        reach = self._mean_and_reach(a)[1]
        return self.process.kernel(a) - reach.mT @ reach

    def sample(self, x: ArrayLike | Tensor, draws: int, seed: int = 0) -> Tensor:
        """Joint draws (draws, ..., m) of the function at x (..., m, d); the same seed gives smooth functions of x.

        Leading dimensions of x beyond the data's are sets of points drawn apart, with the same random numbers.
        """
        a = _doubles(x)
        mean, reach = self._mean_and_reach(a)
        widest = self.process.kernel.diagonal(a).amax(-1)
        return joint(mean, self.process.kernel(a) - reach.mT @ reach, widest, draws, seed)

    def _mean_and_reach(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior mean (..., m), and L^-1 K(data, x), (..., n, m)."""
        if x.dim() < 2 or x.shape[-1] != self.x.shape[-1]:
            raise UsageError(f"predict(x of {tuple(x.shape)}): x is (..., m, {self.x.shape[-1]}), as the data were")
        reach = torch.linalg.solve_triangular(self.factor, self.process.kernel(self.x, x), upper=False)
        return self.process._mean[..., None] + (reach * self._white).sum(-2), reach


def joint(mean: Tensor, covariance: Tensor, widest: Tensor, draws: int, seed: int) -> Tensor:
    """Draws (draws, ..., m) of normals with this mean (..., m) and covariance (..., m, m).

    widest: the variance (...) that rounding errors are measured by, which is the prior's: a posterior's may be none.
    One batch element's random numbers are the next one's too: what differs between them is what they believe.
    """
    m = mean.shape[-1]
    factor, failed = covariance, torch.ones(1)
    for power in range(5):
        factor, failed = torch.linalg.cholesky_ex(
            covariance + (JITTER * 10.0**power * widest)[..., None, None] * torch.eye(m, dtype=covariance.dtype)
        )
        if not bool(failed.any()):
            break
    if bool(failed.any()):
        raise UsageError("sample(x, draws): the covariance at x is not positive; leave out the points that repeat")
    noise = torch.randn(draws, m, generator=torch.Generator().manual_seed(seed), dtype=mean.dtype)
    noise = noise.reshape(draws, *[1] * (mean.dim() - 1), m)
    return mean + (factor @ noise[..., None])[..., 0]


def fit(
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    kernel: Covariance,
    noise: float | None = None,
    mean: float | None = None,
    restarts: int = 4,
    updates: int = 100,
    seed: int = 0,
) -> GaussianProcess:
    """The process whose hyper-parameters maximise the evidence of y (..., n) at x (..., n, d), one for each data set.

    kernel: where the first restart begins; the others begin at it times log-normal factors. What `kernel.positives()`
    names is fitted, in its range. noise, mean: held where they are given, fitted where None: the noise's variance
    between 1e-6 and 1, so values should be near unit scale; the mean by generalised least squares.
    restarts: starts, of which each data set keeps its best. updates: steps of Rprop (Blum and Riedmiller, 2013), which
    uses only signs of slopes, so that no data set's fit depends on what is fitted beside it.
    """
    a, b = _doubles(x), _doubles(y)
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-1])
    starts, ranges = _starts(kernel, noise, batch, restarts, seed)
    if not starts:
        return _given(kernel, noise, mean, {}, a, b).process
    optimiser = torch.optim.Rprop(starts.values(), lr=0.1, etas=(0.5, 1.2), step_sizes=(1e-6, 1.0))
    best = torch.full((restarts, *batch), -torch.inf, dtype=torch.float64)
    kept = {name: start.detach().clone() for name, start in starts.items()}
    for _ in range(updates + 1):
        evidence = _given(kernel, noise, mean, starts, a, b).log_evidence
        with torch.no_grad():
            better = evidence > best
            best = torch.where(better, evidence, best)
            for name, start in starts.items():
                wide = better[(...,) + (None,) * (start.dim() - better.dim())]
                kept[name] = torch.where(wide, start, kept[name])
        optimiser.zero_grad()
        (-evidence.sum()).backward()
        optimiser.step()
        with torch.no_grad():
            for name, start in starts.items():
                start.clamp_(math.log(ranges[name][0]), math.log(ranges[name][1]))
    which = best.argmax(0)
    chosen = {name: _take(value, which) for name, value in kept.items()}
    return _given(kernel, noise, mean, chosen, a, b).process


def _starts(
    kernel: Covariance, noise: float | None, batch: torch.Size, restarts: int, seed: int
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """Logarithms of what is fitted, (restarts, *batch, ...) each, and their ranges."""
    if restarts < 1:
        raise UsageError(f"fit(restarts={restarts}): at least one, fit(x, y, kernel, restarts=4)")
    generator = torch.Generator().manual_seed(seed)
    wanted = dict(kernel.positives())
    if noise is None:
        wanted["noise"] = Positive(torch.tensor(1e-2, dtype=torch.float64), *NOISES)
    starts, ranges = {}, {}
    for name, (value, low, high, own) in wanted.items():
        ends = value.shape[value.dim() - own :]
        start = value.log().expand(restarts, *batch, *ends)
        spread = torch.randn(restarts, *[1] * len(batch), *ends, generator=generator, dtype=torch.float64)
        spread[0] = 0.0
        starts[name] = (start + spread).clamp(math.log(low), math.log(high)).requires_grad_()
        ranges[name] = (low, high)
    return starts, ranges


def _given(
    kernel: Covariance, noise: float | None, mean: float | None, logs: dict[str, Tensor], x: Tensor, y: Tensor
) -> Posterior:
    """The posterior with these hyper-parameters, and with its best mean where none is held."""
    values = {name: log.exp() for name, log in logs.items()}
    seen = values.pop("noise") if noise is None else noise
    posterior = GaussianProcess(kernel.with_(values), seen, 0.0 if mean is None else mean).given(x, y)
    return posterior.centred() if mean is None else posterior


def _take(values: Tensor, which: Tensor) -> Tensor:
    """values (restarts, *batch, ...) at which (*batch)."""
    at = which[(None, ..., *[None] * (values.dim() - 1 - which.dim()))]
    return values.detach().take_along_dim(at, 0)[0]


def _doubles(values: ArrayLike | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
