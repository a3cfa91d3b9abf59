"""What an objective can ask for: draws, expectations, copies; and numbers that are known only in the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Poisson

from anystep.bayes.vi.strategies import SCORE, Strategy
from anystep.errors import UsageError

Going = Generator[Any, Any, Any]
Objective = Callable[[], Going]


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw in an objective: the answer is the value and its log-density. owner: whose evaluations branches are."""

    distribution: Distribution
    by: Strategy
    owner: str = "objective"


@dataclass(frozen=True, slots=True)
class Begin:
    """A program is about to run: one evaluation a row."""

    owner: str


@dataclass(frozen=True, slots=True)
class Expect:
    """`mean = yield Expect(objective)`: an `Estimate` of an expectation; scores inside multiply its own loss only."""

    objective: Objective


@dataclass(frozen=True, slots=True)
class Copies:
    """`values = yield Copies(k, objective)`: k independent runs, stacked on a new first axis.

    They belong to the expectation around them, which may use them in any way. at_once: run them as one batch, which
    sites that branch refuse; else one after the other, where branches of one copy meet all branches of the others.
    """

    k: int
    objective: Objective
    at_once: bool = True


class Estimate:
    """A number that is known in the mean: its own mean, and its derivative's, are right.

    Add, subtract and scale them, and multiply those of different expectations; anything else is biased and refused.
    """

    __slots__ = ("sources", "value")

    def __init__(self, value: Tensor, sources: frozenset[int]) -> None:
        self.value, self.sources = value, sources

    def __add__(self, other: Any) -> Estimate:
        if isinstance(other, Estimate):
            return Estimate(self.value + other.value, self.sources | other.sources)
        return Estimate(self.value + other, self.sources)

    def __mul__(self, other: Any) -> Estimate:
        if not isinstance(other, Estimate):
            return Estimate(self.value * other, self.sources)
        if self.sources & other.sources:
            raise UsageError(
                "The mean of a product is not that of estimates that share draws: yield Expect(...) twice."
            )
        return Estimate(self.value * other.value, self.sources | other.sources)

    def __neg__(self) -> Estimate:
        return self * -1.0

    def __sub__(self, other: Any) -> Estimate:
        return self + -other

    def __rsub__(self, other: Any) -> Estimate:
        return -self + other

    def __truediv__(self, other: Any) -> Estimate:
        if isinstance(other, Estimate):
            raise UsageError("1 / an Estimate is biased; divide by what is known.")
        return self * (1.0 / other)

    __radd__, __rmul__ = __add__, __mul__

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Estimate:
        """What torch makes of a tensor and an Estimate: sums and multiples, and nothing else."""
        reversed_ = {"add": "__radd__", "mul": "__rmul__", "sub": "__rsub__"}.get(function.__name__)
        if reversed_ is None or kwargs or len(args) != 2 or not isinstance(args[1], Estimate):
            raise UsageError(
                f"{function.__name__} of an Estimate is biased: estimates add, scale, and multiply independent others; "
                "exponential(objective) estimates exp, and what is not under Expect may be used in any way."
            )
        return getattr(args[1], reversed_)(args[0])


def exponential(objective: Objective, rate: float = 2.0) -> Going:
    """`e = yield from exponential(objective)`: an Estimate of exp of an expectation.

    The product of a Poisson number of independent estimates, each divided by `rate`, times exp(rate). Its variance is
    least where the rate is near the estimates' size.
    """

    def product() -> Going:
        number, _ = yield Draw(Poisson(torch.tensor(float(rate))), SCORE)
        most = int(number.max())
        if most == 0:
            return torch.full_like(number, rate).exp()

        def factor() -> Going:
            return ((yield Expect(objective)) / rate).value

        factors = yield Copies(most, factor)
        place = torch.arange(most, device=number.device).reshape(-1, *(1,) * (factors.ndim - 1))
        return torch.where(place < number, factors, torch.ones_like(factors)).prod(0) * torch.tensor(rate).exp()

    return (yield Expect(product))


def mean_exp(logs: Tensor) -> Tensor:
    """log of the mean of exp over the first axis."""
    return torch.logsumexp(logs, 0) - math.log(len(logs))
