"""Static nested sampling by dynesty, with its likelihood calls counted, paid for and remembered.

Preserves the evidence and the posterior in the limit of many live points; at n of them log Z has a standard deviation
of about sqrt(H / n), H the information in nats, which is reported as `logzerr`.

Source: Skilling, "Nested sampling for general Bayesian computation" (Bayesian Analysis 1, 2006); the sampler is
dynesty's (Speagle, MNRAS 493, 2020; doi 10.5281/zenodo.3348367), which the extra `bayes` installs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.ledger import FREE, Budget, Cost, Ledger

Floats = NDArray[np.float64]
IMPOSSIBLE = -1e300  # what dynesty writes for a log-likelihood of minus infinity


@dataclass(frozen=True)
class NestedResult:
    """What a run found. Weights sum to one; log-likelihoods and evidence are in nats.

    samples: (n, dim), in the prior's own units. weights: (n,). log_likelihood: (n,). information: nats by which the
    posterior is narrower than the prior. iterations: points that died. cost: all that was paid, `cost.evaluations`
    being calls of the true likelihood; `by` splits them by purpose. stopped_because: "converged", or what of the
    budget ran out, in which case the evidence is a lower bound in expectation and the samples lean to the prior.
    """

    logz: float
    logzerr: float
    information: float
    samples: Floats = field(repr=False)
    weights: Floats = field(repr=False)
    log_likelihood: Floats = field(repr=False)
    iterations: int
    cost: Cost
    by: Mapping[str, Cost]
    stopped_because: str

    @property
    def calls(self) -> int:
        """Calls of the true likelihood, whatever for."""
        return self.cost.evaluations

    @property
    def ess(self) -> float:
        """Effective number of samples behind the weights (Kish)."""
        return float(1 / (self.weights**2).sum())

    @property
    def mean(self) -> Floats:
        """Posterior mean, (dim,)."""
        return np.asarray(self.weights @ self.samples)

    @property
    def covariance(self) -> Floats:
        """Posterior covariance, (dim, dim)."""
        apart = self.samples - self.mean
        return np.asarray((self.weights[:, None] * apart).T @ apart)


class Spent(Exception):
    """The ledger refused another call of the likelihood."""


class Truth:
    """The true log-likelihood as a function of the unit cube: each call is paid for, counted and remembered."""

    def __init__(
        self, log_likelihood: Callable[[Floats], float], prior: Callable[[Floats], Floats], ledger: Ledger
    ) -> None:
        self.log_likelihood, self.prior, self.ledger = log_likelihood, prior, ledger
        self.purpose = "sampling"
        self.best = -math.inf
        self.known: dict[bytes, float] = {}
        self._points: list[Floats] = []

    def __call__(self, u: Floats) -> float:
        if not self.ledger.pay(Cost(evaluations=1), self.purpose):
            raise Spent
        value = float(self.log_likelihood(self.prior(u)))
        if math.isnan(value) or value == math.inf:
            at = self.prior(u)
            raise UsageError(f"log_likelihood({at}) is {value}; return a number, or -math.inf where it is impossible")
        point = np.array(u, dtype=np.float64)
        self.known[point.tobytes()] = value
        self._points.append(point)
        self.best = max(self.best, value)
        return value

    def at(self, points: Floats, purpose: str) -> Floats:
        """True values at these points (n, dim); only those not yet known are called, and paid for."""
        self.purpose = purpose
        try:
            return np.array([self.known[u.tobytes()] if u.tobytes() in self.known else self(u) for u in points])
        finally:
            self.purpose = "sampling"

    def go_on(self) -> None:
        """Raises Spent where time or the run itself is over, before work that calls no likelihood."""
        if not self.ledger.pay(FREE, "learning"):
            raise Spent

    def remembered(self) -> tuple[Floats, Floats]:
        """All points (n, dim) and values (n,) so far, in the order of their calls."""
        return np.array(self._points), np.array([self.known[u.tobytes()] for u in self._points])


@dataclass(frozen=True)
class Stretch:
    """Points in the order of their death with the volumes they enclosed: u (n, dim), logl (n,), logvol (n,)."""

    u: Floats
    logl: Floats
    logvol: Floats

    def then(self, later: Stretch) -> Stretch:
        """This stretch followed by one that began in the volume where this one ended."""
        volume = self.logvol[-1] if len(self.logvol) else 0.0
        return Stretch(
            np.concatenate([self.u, later.u]),
            np.concatenate([self.logl, later.logl]),
            np.concatenate([self.logvol, later.logvol + volume]),
        )

    def integrated(self) -> tuple[float, float, float, Floats]:
        """log Z, its standard deviation, the information, and the points' weights."""
        weight, logz, variance, information = dynesty().utils.compute_integrals(logl=self.logl, logvol=self.logvol)
        p = np.exp(weight - logz[-1])
        return float(logz[-1]), math.sqrt(variance[-1]), float(information[-1]), p / p.sum()


class Shrinking:
    """One dynesty sampler under way: it can be paused after any number of deaths, and read without being disturbed."""

    def __init__(
        self,
        value: Callable[[Floats], Any],
        dim: int,
        live: int,
        rng: np.random.Generator,
        options: Mapping[str, Any],
        start: tuple[Floats, Floats] | None = None,
    ) -> None:
        """start: live points (live, dim) and values, uniform in what volume is left; drawn from the cube if None."""
        told = dict(options)
        if start is not None:
            told |= {"live_points": [start[0].copy(), start[0].copy(), start[1].copy()]}
            told |= {"first_update": {"min_ncall": 0, "min_eff": 100.0}}  # the cube is too wide already
        self.sampler = dynesty().NestedSampler(value, np.copy, dim, nlive=live, rstate=rng, **told)
        self.steps = self.sampler.sample(dlogz=1e-3 * (live - 1) + 0.01, save_bounds=False)
        self.deaths = 0

    def advance(self, deaths: int) -> bool:
        """Let so many points die; False once what remains can no longer matter."""
        for _ in range(deaths):
            if next(self.steps, None) is None:
                return False
            self.deaths += 1
        return True

    @property
    def live(self) -> tuple[Floats, Floats]:
        """The points now alive (live, dim) and their values."""
        return self.sampler.live_u.copy(), self.sampler.live_logl.copy()

    def dead(self) -> Stretch:
        run = self.sampler.saved_run
        u = np.array(run["u"]).reshape(-1, self.sampler.live_u.shape[1])
        return Stretch(u, np.array(run["logl"], dtype=float), np.array(run["logvol"], dtype=float))

    def finished(self) -> Stretch:
        """The dead, then the living as if they died where they stand; ends the run."""
        for _ in self.sampler.add_live_points():
            pass
        return self.dead()


def dynesty() -> Any:
    try:
        import dynesty as package
    except ImportError as error:
        raise UsageError('NestedSampler needs dynesty: pip install "anystep[bayes]"') from error
    return package


@dataclass(frozen=True)
class NestedSampler:
    """Nested sampling of a likelihood under a prior: `NestedSampler(log_likelihood, prior, dim=3).run(seed=0).logz`.

    log_likelihood: parameters (dim,) to a number of nats, -inf where impossible. prior: a point of the unit cube (dim,)
    to parameters (dim,), so that uniform points become draws from the prior. live: points kept alive. bound, sample:
    dynesty's words for the shape around the live points and for the way a new one is drawn from it.

    The run is dynesty's static one, with its default end: the numbers are those of `dynesty.NestedSampler` under the
    generator `numpy.random.Generator(numpy.random.Philox(seed))`.
    """

    log_likelihood: Callable[[Floats], float]
    prior: Callable[[Floats], Floats]
    dim: int
    live: int = 500
    bound: str = "multi"
    sample: str = "auto"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise UsageError(f"NestedSampler(dim={self.dim}): dim is the number of parameters, 1 or more")
        if self.live < max(20, 2 * self.dim):
            raise UsageError(
                f"NestedSampler(live={self.live}): {self.dim} parameters need live={max(20, 2 * self.dim)} or more"
            )

    def run(self, seed: int = 0, budget: Budget | None = None) -> NestedResult:
        """One run. Calls of the likelihood are what `Budget(evaluations=...)` counts, and it is never overshot."""
        ledger = Ledger(budget or Budget(), reserve=0.0)
        ledger.begin()
        truth, shrinking, why = Truth(self.log_likelihood, self.prior, ledger), None, "converged"
        try:
            shrinking = self.started(truth, stream(seed))
            while shrinking.advance(self.live):
                pass
        except Spent:
            why = str(ledger.refused)
        return told(self.ended(shrinking, truth), truth, why, 0 if shrinking is None else shrinking.deaths)

    def started(self, truth: Truth, rng: np.random.Generator) -> Shrinking:
        return Shrinking(truth, self.dim, self.live, rng, self.words)

    @property
    def words(self) -> dict[str, str]:
        return {"bound": self.bound, "sample": self.sample}

    def ended(self, shrinking: Shrinking | None, truth: Truth) -> Stretch:
        """What there is at the end; a run that was refused before it began has its few prior draws."""
        if shrinking is not None:
            return shrinking.finished()
        u, logl = truth.remembered()
        if not len(u) or not np.isfinite(logl).any():
            raise UsageError(
                f"run(budget={truth.ledger.budget}) ended before a live point was possible; "
                f"give it Budget(evaluations={10 * self.live}) or more."
            )
        order = np.argsort(logl, kind="stable")
        logvol = np.log1p(-np.arange(1, len(u) + 1) / (len(u) + 1))
        return Stretch(u[order], np.maximum(logl[order], IMPOSSIBLE), logvol)


def stream(seed: int, *path: int) -> np.random.Generator:
    """The sampler's generator for a seed; with a path, one of the streams beside it, independent of it."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=path) if path else seed))


def told(points: Stretch, truth: Truth, why: str, deaths: int) -> NestedResult:
    logz, logzerr, information, weights = points.integrated()
    samples = np.array([truth.prior(u) for u in points.u])
    spent, by = truth.ledger.spent, dict(truth.ledger.by)
    return NestedResult(logz, logzerr, information, samples, weights, points.logl, deaths, spent, by, why)
