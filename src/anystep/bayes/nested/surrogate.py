"""Nested sampling that learns its likelihood on the way, and calls the true one only to learn and to check.

The sampler begins with the true likelihood. From time to time a network is trained on the best points seen so far
(first gate: held-out points). If it is accurate, the run goes on from the present live points with the network in the
likelihood's place, while some of the points that die and some that live are checked against the truth (second gate).
At the end posterior draws are weighted by true over learned likelihood, which corrects evidence and posterior (third
gate: their effective number). Whenever a gate closes, all that the network did is forgotten but for the true values
that were paid for, and the run with the true likelihood goes on from where it was paused.

Preserves what plain nested sampling preserves, up to what no check can see: a peak that no live point had found when
the network took over. A run in which no network lasts is the plain run of the same seed, number for number: network and
checks draw from streams of their own, and no point of theirs becomes a live one.

Source: Gomez-Vargas and Vazquez, "Deep Learning and genetic algorithms for cosmological Bayesian inference speed-up"
(arXiv 2405.03293, PRD 2024). Other than there: tolerances are in nats below the best point and not a share of log L
(of which a constant would decide), a network that failed leaves no point behind, the result is corrected by
importance weights, and no search chooses initial live points, which would have to be uniform draws from the prior.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from anystep.bayes.nested.genetic import GeneticSearch
from anystep.bayes.nested.network import Architecture, Network, fit
from anystep.bayes.nested.plain import (
    IMPOSSIBLE,
    Floats,
    NestedResult,
    NestedSampler,
    Shrinking,
    Spent,
    Stretch,
    Truth,
    stream,
    told,
)
from anystep.errors import UsageError
from anystep.ledger import Budget, Ledger


@dataclass(frozen=True)
class Gate:
    """When a network may stand for the likelihood.

    nats: the error allowed near the best point. slope: the error allowed far below it, as a share of the depth best -
    log L, which no constant in log L changes; the larger of the two holds. opens: the share of the held-out points that
    must be within to let a network try, which costs it the few calls of its first check. share: likewise of each later
    check. ess: of the corrected posterior draws, the effective share that must be left. monitor: whether the second
    and third gate exist; without them nothing is checked or corrected after the swap.
    """

    nats: float = 0.2
    slope: float = 0.05
    opens: float = 0.5
    share: float = 0.8
    ess: float = 0.6
    monitor: bool = True

    def __post_init__(self) -> None:
        if not (
            self.nats > 0 and self.slope >= 0 and 0 < self.opens <= 1 and 0 < self.share <= 1 and 0 <= self.ess < 1
        ):
            raise UsageError(f"{self}: nats > 0, slope >= 0 and shares of one, as in Gate(nats=0.2, share=0.8)")

    def within(self, true: Floats, learned: Floats, best: float) -> float:
        """The share of these values that is learned well enough."""
        possible = np.isfinite(true)
        depth = best - np.where(possible, true, best)
        near = np.abs(best - depth - learned) <= np.maximum(self.nats, self.slope * depth)
        return float((possible & near).mean())


@dataclass(frozen=True)
class Attempt:
    """One network: after how many deaths it was trained, on how many points, what it scored on held-out ones, how many
    points died under it, and which gate closed ("held out", "monitor", "correction"; "" if none did)."""

    after: int
    points: int
    score: float
    deaths: int
    closed: str
    seconds: float


@dataclass(frozen=True)
class SurrogateResult(NestedResult):
    """As NestedResult. attempts: every network that was trained. correction: nats that the importance weights added to
    log Z. correction_ess: effective number of the corrected draws. architecture: what the networks were. learned: the
    result before it was corrected, None if no network lasted."""

    attempts: tuple[Attempt, ...] = ()
    correction: float = 0.0
    correction_ess: float = math.nan
    architecture: Architecture = Architecture()
    learned: NestedResult | None = field(default=None, repr=False)

    @property
    def swapped(self) -> bool:
        """Whether a network stood for the likelihood to the end."""
        return self.learned is not None


@dataclass(frozen=True)
class SurrogateNestedSampler(NestedSampler):
    """`SurrogateNestedSampler(log_likelihood, prior, dim=3).run(seed=0)`: nested sampling for costly likelihoods.

    first: deaths before the first network, in units of `live`. every: deaths between networks that fail, and between
    checks of one that lasts, likewise; the wait doubles with each that fails on held-out points. extra: true
    evaluations around the best point before each training, which join the training set only. dead, alive: points of
    either kind that a check evaluates. corrected: posterior draws that are weighted by the truth at the end. retries:
    networks in a row that may follow one closed by a check, as each leaves new true values. networks: the most that are
    trained in all. architecture: of the
    network, or a GeneticSearch that finds one at the first training.
    """

    first: float = 1.0
    every: float = 0.5
    extra: int = 20
    dead: int = 15
    alive: int = 10
    corrected: int = 600
    retries: int = 5
    networks: int = 20
    gate: Gate = Gate()
    architecture: Architecture | GeneticSearch = Architecture()

    def run(self, seed: int = 0, budget: Budget | None = None) -> SurrogateResult:
        """One run. Every call of the true likelihood is counted and paid for, by purpose: "sampling", "extra",
        "monitor", "correction". Where the budget ends under a network, the result is what the paused run with the true
        likelihood has, and `stopped_because` says so."""
        ledger = Ledger(budget or Budget(), reserve=0.0)
        ledger.begin()
        truth = Truth(self.log_likelihood, self.prior, ledger)
        return _Run(self, truth, seed).result()


class _Run:
    """A run under way: the paused sampler with the true likelihood, and the networks tried from where it stands."""

    def __init__(self, method: SurrogateNestedSampler, truth: Truth, seed: int) -> None:
        self.method, self.truth, self.seed = method, truth, seed
        self.attempts: list[Attempt] = []
        self.architecture = method.architecture
        self.shrinking: Shrinking | None = None

    def result(self) -> SurrogateResult:
        why = "converged"
        try:
            self.shrinking = self.method.started(self.truth, stream(self.seed))
            found = self.followed()
        except Spent:
            why, found = str(self.truth.ledger.refused), None
        if found is not None:
            return replace(found, attempts=tuple(self.attempts))
        deaths = 0 if self.shrinking is None else self.shrinking.deaths
        plain = told(self.method.ended(self.shrinking, self.truth), self.truth, why, deaths)
        shape = self.architecture if isinstance(self.architecture, Architecture) else Architecture()
        return SurrogateResult(**vars(plain), attempts=tuple(self.attempts), architecture=shape)

    def followed(self) -> SurrogateResult | None:
        """The run with the truth, and networks whenever one is due; None if it converged without them."""
        method, shrinking, left, wait = self.method, self.shrinking, self.method.retries, self.method.every
        assert shrinking is not None
        going = shrinking.advance(round(method.first * method.live))
        while going and len(self.attempts) < method.networks:
            found = self.tried(shrinking)
            if found is not None:
                return found
            if self.attempts[-1].closed != "held out" and left:
                left -= 1
                continue
            going, left = shrinking.advance(max(1, round(wait * method.live))), method.retries
            wait *= 2
        while going:
            going = shrinking.advance(method.live)
        return None

    def tried(self, shrinking: Shrinking) -> SurrogateResult | None:
        """One network, to the end if no gate closes."""
        self.truth.go_on()
        began = time.perf_counter()
        rng = stream(self.seed, 1, len(self.attempts))
        u, logl = self.training_set(shrinking, rng)
        network, score = self.trained(u, logl, rng)
        deaths, closed, found = 0, "held out", None
        if score >= self.method.gate.opens:
            start = shrinking.live[0]
            learning = Shrinking(
                network, self.method.dim, self.method.live, rng, self.method.words, (start, network(start))
            )
            closed = "" if self.lasted(learning, network, rng) else "monitor"
            deaths = learning.deaths
            if not closed:
                found = self.corrected(shrinking.dead(), learning.finished(), network, rng)
                closed = "" if found is not None else "correction"
        taken = time.perf_counter() - began
        self.attempts.append(Attempt(shrinking.deaths, len(u), score, deaths, closed, taken))
        return found

    def training_set(self, shrinking: Shrinking, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """The best points so far, at least 800 and twice as many as live, with new ones around the very best."""
        u, logl = shrinking.live
        best, spread = u[logl.argmax()], u.std(0) / 4
        near = best + spread * rng.standard_normal((self.method.extra, len(best)))
        self.truth.at(np.clip(near, 0.0, 1.0), "extra")
        u, logl = self.truth.remembered()
        top = np.argsort(-logl, kind="stable")[: max(800, 2 * self.method.live)]
        top = top[logl[top] > IMPOSSIBLE]
        return u[top], logl[top]

    def trained(self, u: Floats, logl: Floats, rng: np.random.Generator) -> tuple[Network, float]:
        """A network, and the share of a held-out fifth that it learned well enough."""
        out = rng.permutation(len(u)) < len(u) // 5
        if isinstance(self.architecture, GeneticSearch):
            self.architecture = self.architecture.best(u[~out], logl[~out], self.truth.best, rng)
        network = fit(u[~out], logl[~out], self.truth.best, self.architecture, rng)
        return network, self.method.gate.within(logl[out], network(u[out]), self.truth.best)

    def lasted(self, learning: Shrinking, network: Network, rng: np.random.Generator) -> bool:
        """The second gate: whether the network stays right on points that die under it, and on some that live."""
        method, gate = self.method, self.method.gate
        step = max(method.dead, round(method.every * method.live))
        going = True
        while going:
            self.truth.go_on()
            going = learning.advance(step)
            if gate.monitor:
                dead = learning.dead().u[-step:]
                some = np.concatenate([_some(dead, method.dead, rng), _some(learning.live[0], method.alive, rng)])
                if gate.within(self.truth.at(some, "monitor"), network(some), self.truth.best) < gate.share:
                    return False
        return True

    def corrected(
        self, before: Stretch, after: Stretch, network: Network, rng: np.random.Generator
    ) -> SurrogateResult | None:
        """The whole run, with posterior draws weighted by true over learned likelihood; None if few of them count."""
        method, truth, points = self.method, self.truth, before.then(after)
        shape = self.architecture
        assert isinstance(shape, Architecture)
        deaths = len(points.u) - method.live
        if not method.gate.monitor:
            plain = told(points, truth, "converged", deaths)
            return SurrogateResult(**vars(plain), architecture=shape, learned=plain)
        weights = points.integrated()[3]
        drawn = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(method.corrected)) / method.corrected)
        drawn = np.minimum(drawn, len(weights) - 1)
        true = truth.at(points.u[drawn], "correction")
        apart = true - points.logl[drawn]
        ratio = np.exp(apart - apart.max())
        ess = float(ratio.sum() ** 2 / (ratio**2).sum())
        if not ess >= method.gate.ess * method.corrected:  # NaN where every true value is impossible
            return None
        plain = told(points, truth, "converged", deaths)
        shift = float(np.log(ratio.mean()) + apart.max())
        error = math.hypot(plain.logzerr, float(ratio.std() / ratio.mean()) / math.sqrt(len(ratio)))
        right = replace(
            plain,
            logz=plain.logz + shift,
            logzerr=error,
            samples=plain.samples[drawn],
            weights=ratio / ratio.sum(),
            log_likelihood=true,
        )
        return SurrogateResult(**vars(right), correction=shift, correction_ess=ess, architecture=shape, learned=plain)


def _some(points: Floats, n: int, rng: np.random.Generator) -> Floats:
    """n of these points, or all."""
    return points[rng.permutation(len(points))[:n]]
