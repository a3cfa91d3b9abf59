"""How a random choice passes its gradient on: one strategy a site.

A strategy draws a value and says how the rest of the program's loss, given that value, becomes a loss whose mean is the
expectation and whose mean derivative is the derivative of the expectation. Strategies that look at several values put
them on a new first axis, so that the rest of the program runs once, on all of them.

Source: Becker et al., "Probabilistic Programming with Programmable Variational Inference", PLDI 2024,
arXiv 2406.15742, and the calculus of estimators that it builds on (ADEV, arXiv 2212.06386).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, Distribution, Poisson

from anystep.errors import UsageError


@dataclass(slots=True)
class Site:
    """What a strategy made of a choice.

    value: shape (..., draws, *event), with the branches first where there are any. log_density: of the value, without
    the event's axes. score: zero, and its derivative is that of the value's log-density; what the loss is less
    `credit` multiplies it. fold: makes one loss of the branches'.
    """

    value: Tensor
    log_density: Tensor
    score: Tensor | None = None
    credit: Tensor | None = None
    fold: Callable[[Tensor], Tensor] | None = None

    def close(self, loss: Tensor) -> Tensor:
        """The loss of the rest of the program, as a loss of what came before this choice."""
        if self.fold is not None:
            return self.fold(loss)
        if self.score is not None:
            loss = loss + loss.detach() * self.score
        return loss if self.credit is None else loss - self.credit


class Strategy(ABC):
    """Unbiased for every loss that is differentiable where the strategy differentiates it, unless it says otherwise."""

    branches = False  # whether values come on an axis of their own

    @abstractmethod
    def open(self, distribution: Distribution, shape: Size) -> Site:
        """Draw for this batch shape. Raises UsageError for a distribution that the strategy has no rule for."""


class Reparameterise(Strategy):
    """The value is a differentiable function of noise; for Gamma, Beta and the like, as torch differentiates them."""

    def open(self, distribution: Distribution, shape: Size) -> Site:
        if not distribution.has_rsample:
            raise UsageError(
                f"{_name(distribution)} is no function of noise; Sample(..., by=Score()) takes any choice."
            )
        value = distribution.rsample(_more(distribution, shape))
        return Site(value, distribution.log_prob(value))


class Implicit(Strategy):
    """dx = -dF(x) / p(x), for one real number with a differentiable distribution function F (mixtures, for one)."""

    def open(self, distribution: Distribution, shape: Size) -> Site:
        still = _drawn(distribution, shape)
        try:
            below = distribution.cdf(still)
        except NotImplementedError:
            raise UsageError(f"{_name(distribution)} has no cdf; Sample(..., by=Score()) takes any choice.") from None
        slope = distribution.log_prob(still).detach().exp()
        value = still - (below - below.detach()) / slope
        return Site(value, distribution.log_prob(value))


class Score(Strategy):
    """The score function, REINFORCE: the loss, less a baseline, times the derivative of the log-density.

    Takes any distribution, and noise from all of the loss. baseline: a number, or a tensor that does not depend on the
    value.
    """

    def __init__(self, baseline: float | Tensor = 0.0) -> None:
        self.baseline = torch.as_tensor(baseline).detach()
        self.credited = bool(self.baseline.any())

    def open(self, distribution: Distribution, shape: Size) -> Site:
        value = self.draw(distribution, shape)
        density = distribution.log_prob(value)
        score = _tangent(density)
        return Site(value, density, score, self.baseline * score if self.credited else None)

    def draw(self, distribution: Distribution, shape: Size) -> Tensor:
        """A value without a derivative of its own, for the score accounts for all of it."""
        return _drawn(distribution, shape)


class LeaveOneOut(Strategy):
    """REINFORCE with m values, each against the mean loss of the others. m: 2 or more."""

    branches = True

    def __init__(self, m: int = 4) -> None:
        if m < 2:
            raise UsageError(f"LeaveOneOut({m}): each value is compared with others, so 2 or more; LeaveOneOut(4).")
        self.m = m

    def open(self, distribution: Distribution, shape: Size) -> Site:
        value = _drawn(distribution, Size((self.m, *shape)))
        density = distribution.log_prob(value)
        score = _tangent(density)

        def fold(loss: Tensor) -> Tensor:
            each = _on(loss, score).detach()
            others = (each.sum(0) - each) / (self.m - 1)
            return (loss + (each - others) * score).mean(0)

        return Site(value, density, fold=fold)


class Enumerate(Strategy):
    """Every value of a finite support, weighted by its probability: no noise at all, and a branch a value."""

    branches = True

    def open(self, distribution: Distribution, shape: Size) -> Site:
        if not distribution.has_enumerate_support:
            raise UsageError(f"{_name(distribution)} has no finite support; Sample(Bernoulli(0.3), by=Enumerate()).")
        ranks = len(shape) - len(distribution.batch_shape)
        value = distribution.enumerate_support(expand=False)
        value = value.reshape(len(value), *(1,) * ranks, *value.shape[1:])
        density = distribution.log_prob(value)
        mass = density.exp()
        return Site(value, density, fold=lambda loss: (mass * loss).sum(0))


class WeakDerivative(Strategy):
    """Of a flip or a count: the loss at one value less that at another, times the derivative of the parameter.

    Bernoulli: p' (L(1) - L(0)). Poisson: rate' (L(n + 1) - L(n)). One branch more than the value, and no score.
    """

    branches = True

    def open(self, distribution: Distribution, shape: Size) -> Site:
        value = _drawn(distribution, shape)
        if isinstance(distribution, Bernoulli):
            other, tangent = 1 - value, _tangent(distribution.probs) * (1 - 2 * value)
        elif isinstance(distribution, Poisson):
            other, tangent = value + 1, _tangent(distribution.rate)
        else:
            raise UsageError(f"{_name(distribution)}: WeakDerivative() knows Bernoulli and Poisson; by=Score() any.")
        both = torch.stack((value, other))

        def fold(loss: Tensor) -> Tensor:
            at, beside = _on(loss, both)
            return at + tangent * (beside - at).detach()

        return Site(both, distribution.log_prob(both), fold=fold)


class Fixed(Strategy):
    """As another strategy draws, but without a derivative: what is drawn counts as data."""

    def __init__(self, by: Strategy) -> None:
        self.by, self.branches = by, by.branches

    def open(self, distribution: Distribution, shape: Size) -> Site:
        with torch.no_grad():
            return self.by.open(distribution, shape)


def usual(distribution: Distribution) -> Strategy:
    """Reparameterise where torch can, else Score."""
    return REPARAMETERISE if distribution.has_rsample else SCORE


REPARAMETERISE, SCORE = Reparameterise(), Score()


def _drawn(distribution: Distribution, shape: Size) -> Tensor:
    with torch.no_grad():
        return distribution.sample(_more(distribution, shape))


def _more(distribution: Distribution, shape: Size) -> Size:
    """What to ask of a distribution to have values of this batch shape."""
    return shape[: len(shape) - len(distribution.batch_shape)]


def _tangent(x: Tensor) -> Tensor:
    """Zero, with the derivative of x."""
    return x - x.detach()


def _on(loss: Tensor, branches: Tensor) -> Tensor:
    """The loss with the branches' axis, which it lacks where it does not depend on the choice."""
    return torch.broadcast_tensors(loss, branches)[0]


def _name(distribution: Distribution) -> str:
    return type(distribution).__name__
