"""Programs for `marginal` and `normalise`, and what their estimates and gradients are on average: by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from anystep.bayes import vi
from anystep.bayes.vi import Enumerate, Sample, Score, Strategy
from anystep.experiments._variational import SCORE, WIDE, wide

START = wide(0.3, -0.4, 0.9, 0.5)
BITS = (0.0, 1.0)
PAIRS = tuple(product(BITS, BITS))


def hidden(at: Tensor, by: Strategy = SCORE) -> Callable[[], Any]:
    """A bit `a` that is to be forgotten, and a bit `b` that depends on it."""

    def hidden_cause() -> Any:
        a = yield Sample(Bernoulli(logits=at[..., 0]), "a", by)
        yield Sample(Bernoulli(logits=at[..., 1] + 1.7 * a), "b", by)

    return hidden_cause


def guess(at: Tensor, by: Strategy = SCORE) -> Callable[[Mapping[str, Tensor]], Callable[[], Any]]:
    """What `a` was, given `b`: a rough guess with a parameter of its own."""

    def given(kept: Mapping[str, Tensor]) -> Callable[[], Any]:
        def guess_of_a() -> Any:
            yield Sample(Bernoulli(logits=at[..., 2] * kept["b"] - 0.3), "a", by)

        return guess_of_a

    return given


def forgetful(at: Tensor, n: int, by: Strategy = SCORE, at_once: bool = True) -> vi.marginal:
    return vi.marginal(hidden(at, by), ["b"], guess(at, by), n, at_once)


def flip(logit: Tensor, value: float) -> Tensor:
    """Probability of a bit, by hand."""
    return torch.sigmoid(logit) if value else torch.sigmoid(-logit)


def joint(at: Tensor, a: float, b: float) -> Tensor:
    return flip(at[0], a) * flip(at[1] + 1.7 * a, b)


def kept_mass(at: Tensor, b: float) -> Tensor:
    return joint(at, 0.0, b) + joint(at, 1.0, b)


def scored_bits(at: Tensor) -> Callable[[], Any]:
    """The unnormalised target of the bounds below: how good each bit is."""

    def target() -> Any:
        b = yield Sample(Bernoulli(wide(0.5)[0]), "b")
        yield vi.Factor(1.3 * b + at[..., 3] * b - 0.4)

    return target


def marginal_bound(at: Tensor) -> Tensor:
    """E[log target(b) - log q(b)^] where q(b)^ is the mean over the true `a` and one guessed, at parameters (4,)."""
    total = wide(0.0)[0]
    for (a, b), other in product(PAIRS, BITS):
        chance = flip(at[2] * b - 0.3, other)
        weights = [joint(at, c, b) / flip(at[2] * b - 0.3, c) for c in (a, other)]
        gap = math.log(0.5) + 1.3 * b + at[3] * b - 0.4 - torch.log(sum(weights, wide(0.0)[0]) / 2)
        total = total + joint(at, a, b) * chance * gap
    return total


def target(at: Tensor, b: float) -> Tensor:
    return 0.5 * torch.exp(1.3 * b + at[3] * b - wide(0.4)[0])


def suggestion(at: Tensor) -> Callable[[], Any]:
    def suggest() -> Any:
        yield Sample(Bernoulli(logits=at[..., 0]), "b", SCORE)

    return suggest


def resampled(at: Tensor, n: int, by: Strategy = SCORE) -> vi.normalise:
    return vi.normalise(scored_bits(at), suggestion(at), n, by)


def resampled_sum(at: Tensor, n: int, of: Callable[[float, Tensor], Tensor]) -> Tensor:
    """The mean of `of(b, density estimate)` over what sampling-importance-resampling draws, at parameters (4,)."""
    total = wide(0.0)[0]
    for drawn in product(BITS, repeat=n):
        chance = torch.stack([flip(at[0], b) for b in drawn]).prod()
        weights = torch.stack([target(at, b) / flip(at[0], b) for b in drawn])
        for b, weight in zip(drawn, weights, strict=True):
            total = total + chance * weight / weights.sum() * of(b, target(at, b) / weights.mean())
    return total


def resampled_bound(at: Tensor) -> Tensor:
    """E[log target - log density estimate] of two particles; another target, so that the bound is not flat."""
    return resampled_sum(at, 2, lambda b, density: 0.8 * at[1] * b - density.log())


def other_target(at: Tensor) -> Callable[[], Any]:
    def other() -> Any:
        b = yield Sample(Bernoulli(wide(0.5)[0]), "b")
        yield vi.Factor(0.8 * at[..., 1] * b - math.log(0.5))

    return other


def smooth(n: int) -> vi.marginal:
    """A kept real number whose forgotten bit says which of two bells it comes from."""

    def bells() -> Any:
        c = yield Sample(Bernoulli(wide(0.3)[0]), "c")
        yield Sample(Normal(2.0 * c - 0.5, 0.4 + c), "z")

    def which(kept: Mapping[str, Tensor]) -> Callable[[], Any]:
        def bell() -> Any:
            yield Sample(Bernoulli(logits=0.6 * kept["z"]), "c")

        return bell

    return vi.marginal(bells, ["z"], which, n)


def drawn(construct: vi.Construct, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Values of the one kept address and estimates of their density, from the side that drew them."""
    found: list[Tensor] = []

    def objective() -> Any:
        trace, log = yield from vi.simulate(construct)
        found.extend(trace.values())
        return log

    with torch.no_grad():
        logs = vi.estimate(objective, draws, seed)
    return found[0], logs.exp()


def scores(construct: vi.Construct, name: str, value: float, draws: int, seed: int) -> Tensor:
    """Estimates of the density of one value, from the side that scores it."""
    with torch.no_grad():
        given = {name: torch.full((draws,), value, dtype=WIDE)}
        return vi.estimate(lambda: vi.density(construct, given), draws, seed).exp()


BOUNDS: dict[str, tuple[Callable[[Tensor], vi.expectations.Objective], Callable[[Tensor], Tensor]]] = {
    "marginal": (lambda at: vi.elbo(scored_bits(at), forgetful(at, 2)), marginal_bound),
    "normalise, score": (lambda at: vi.elbo(other_target(at), resampled(at, 2)), resampled_bound),
    "normalise, enumeration": (lambda at: vi.elbo(other_target(at), resampled(at, 2, Enumerate())), resampled_bound),
    "exponential": (
        lambda at: lambda: vi.exponential(vi.elbo(scored_bits(at), vi.using(suggestion(at), Score(-0.5)))),
        lambda at: torch.stack([flip(at[0], b) * (target(at, b) / flip(at[0], b)).log() for b in BITS]).sum().exp(),
    ),
}
