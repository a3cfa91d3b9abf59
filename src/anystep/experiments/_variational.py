"""Four models with guides, in batches of parameters, and what their objectives are: by quadrature and enumeration.

Every one has a skewed or correlated posterior, choices that depend on choices, an amortised guide that does not reach
the posterior, and parameters of the model among those of the guide. Nothing of `bayes.vi` is used for the oracles.
"""

# torch's distributions have no types.
# mypy: disable-error-code="no-untyped-call,no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Gamma, MultivariateNormal, Normal, Poisson

from anystep.bayes import vi
from anystep.bayes.vi import Enumerate, LeaveOneOut, Reparameterise, Sample, Score, Strategy, WeakDerivative
from anystep.ledger import Ledger

Seen = Mapping[str, Tensor]
Atoms = tuple[Tensor, Tensor, Tensor]  # of a rule for integrals: weights, log q and log p(z, x)
WIDE = torch.float64
PART = 20_000
PATH, SCORE, ALL, WEAK, LEFT = Reparameterise(), Score(), Enumerate(), WeakDerivative(), LeaveOneOut(3)


@dataclass(frozen=True)
class World:
    """A model and a guide at parameters (draws, d), what is seen, where the parameters stand, the strategies to try.

    atoms: a rule for integrals over the latent choices, at parameters (d,). sleep: E_p[log q(z | x)] at the same.
    """

    name: str
    start: Tensor
    data: dict[str, Tensor]
    model: Callable[[Tensor], Callable[[], Any]]
    guide: Callable[[Tensor, Seen], Callable[[], Any]]
    strategies: dict[str, dict[str, Strategy]]
    atoms: Callable[[Tensor], Atoms]
    sleep: Callable[[Tensor], Tensor]

    def objective(self, name: str, at: Tensor, by: Mapping[str, Strategy]) -> vi.expectations.Objective:
        """An objective by name, at parameters (draws, d), with these strategies."""
        model, branching = self.model(at), any(strategy.branches for strategy in by.values())
        seen, guide = vi.condition(model, self.data), vi.using(self.guide(at, self.data), by)
        if name == "IWELBO":
            return vi.iwelbo(seen, guide, 2, at_once=not branching)
        if name == "wake-sleep":
            return vi.wake_sleep(vi.using(model, by), lambda x: vi.using(self.guide(at, x), by), self.data)
        return log_variance(seen, guide) if name == "log-variance" else vi.elbo(seen, guide)

    def exact(self, name: str, at: Tensor) -> Tensor:
        """The same objective at parameters (d,): a number to differentiate."""
        weight, q, p = self.atoms(at)
        mass, gap = weight * q.exp(), p - q
        if name == "IWELBO":
            pairs = torch.logaddexp(gap[:, None], gap) - math.log(2)
            return mass @ pairs @ mass
        if name == "wake-sleep":
            return (mass.detach() * p).sum() + self.sleep(at)
        mean = (mass * gap).sum()
        return (mass * gap**2).sum() - mean**2 if name == "log-variance" else mean


def log_variance(model: vi.programs.Program, guide: vi.programs.Program) -> vi.expectations.Objective:
    """A user's own objective: the variance of the log-weights, E[l^2] - E[l] E[l] by independent estimates."""

    def gap() -> Any:
        trace, q = yield from vi.simulate(guide)
        return (yield from vi.density(model, trace)) - q

    def square() -> Any:
        return (yield from gap()) ** 2

    def objective() -> Any:
        return (yield vi.Expect(square)) - (yield vi.Expect(gap)) * (yield vi.Expect(gap))

    return objective


def wide(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=WIDE)


def gaussian() -> World:
    """Two correlated normals seen through a matrix, with correlated noise."""
    turn, noise = wide([1.0, 0.5], [-0.3, 0.8]), wide([0.6, 0.25], [0.25, 0.9])

    def far(at: Tensor, one: Tensor, two: Tensor) -> MultivariateNormal:
        return MultivariateNormal(torch.stack(torch.broadcast_tensors(one, two), -1) @ turn.T + at[..., :2], noise)

    def first(at: Tensor, x: Tensor) -> Normal:
        return Normal(at[..., 2] + 0.4 * x[..., 0] - 0.2 * x[..., 1], at[..., 3].exp())

    def second(at: Tensor, x: Tensor, one: Tensor) -> Normal:
        return Normal(at[..., 4] + at[..., 5] * one + 0.3 * x[..., 1], at[..., 6].exp())

    def model(at: Tensor) -> Callable[[], Any]:
        def gaussian_model() -> Any:
            one = yield Sample(Normal(wide(0.4)[0], 1.2), "one")
            two = yield Sample(Normal(0.7 * one - 0.3, 0.8), "two")
            yield Sample(far(at, one, two), "x")

        return gaussian_model

    def guide(at: Tensor, seen: Seen) -> Callable[[], Any]:
        def gaussian_guide() -> Any:
            one = yield Sample(first(at, seen["x"]), "one")
            yield Sample(second(at, seen["x"], one), "two")

        return gaussian_guide

    data = {"x": wide(1.1, -0.7)}

    def joint(at: Tensor, one: Tensor, two: Tensor, x: Tensor) -> Tensor:
        near = Normal(wide(0.4)[0], 1.2).log_prob(one) + Normal(0.7 * one - 0.3, 0.8).log_prob(two)
        return near + far(at, one, two).log_prob(x)

    def atoms(at: Tensor) -> Atoms:
        """The trapezoid rule, whose error falls as a Gaussian in the step."""
        line = torch.linspace(-7, 7, 47, dtype=WIDE)
        one, two = (grid.reshape(-1) for grid in torch.meshgrid(line, line, indexing="ij"))
        q = first(at, data["x"]).log_prob(one) + second(at, data["x"], one).log_prob(two)
        return torch.full_like(one, float(line[1] - line[0]) ** 2), q, joint(at, one, two, data["x"])

    def sleep(at: Tensor) -> Tensor:
        """Quadratic in normals, so three nodes an axis are exact."""
        at_still = at.detach()
        nodes, weights = np.polynomial.hermite_e.hermegauss(3)
        grid = torch.tensor(list(product(nodes, repeat=4)), dtype=WIDE)
        mass = torch.tensor([math.prod(w) for w in product(weights / weights.sum(), repeat=4)], dtype=WIDE)
        one = 0.4 + 1.2 * grid[:, 0]
        two = 0.7 * one - 0.3 + 0.8 * grid[:, 1]
        x = far(at_still, one, two).loc + grid[:, 2:] @ torch.linalg.cholesky(noise).T
        return (mass * (first(at, x).log_prob(one) + second(at, x, one).log_prob(two))).sum()

    strategies: dict[str, dict[str, Strategy]] = {
        "reparameterised": {"one": PATH, "two": PATH},
        "score": {"one": SCORE, "two": SCORE},
        "mixed, score then reparameterised": {"one": SCORE, "two": PATH},
        "mixed, reparameterised then leave-one-out": {"one": PATH, "two": LEFT},
    }
    return World("gaussian", wide(0.3, -0.2, 0.1, -0.3, -0.4, 0.25, -0.5), data, model, guide, strategies, atoms, sleep)


def gamma() -> World:
    """A rate with a skewed posterior, and a count: conjugate."""
    data = {"x": wide(4.0)[0]}

    def q_of(at: Tensor, x: Tensor) -> Gamma:
        return Gamma(at[..., 1].exp() + 0.5 * x, at[..., 2].exp())

    def model(at: Tensor) -> Callable[[], Any]:
        def gamma_model() -> Any:
            z = yield Sample(Gamma(wide(2.0)[0], 1.5), "z")
            yield Sample(Poisson(at[..., 0].exp() * z), "x")

        return gamma_model

    def guide(at: Tensor, seen: Seen) -> Callable[[], Any]:
        def gamma_guide() -> Any:
            yield Sample(q_of(at, seen["x"]), "z")

        return gamma_guide

    line = torch.linspace(-9, 5, 900, dtype=WIDE)  # of log z
    z, weight = line.exp(), line.exp() * (line[1] - line[0])

    def joint(at: Tensor, x: Tensor) -> Tensor:
        return Gamma(wide(2.0)[0], 1.5).log_prob(z) + Poisson(at[..., 0].exp() * z).log_prob(x)

    def atoms(at: Tensor) -> Atoms:
        return weight, q_of(at, data["x"]).log_prob(z), joint(at, data["x"])

    def sleep(at: Tensor) -> Tensor:
        x = torch.arange(90, dtype=WIDE)[:, None]
        return (weight * joint(at.detach(), x).exp() * q_of(at, x).log_prob(z)).sum()

    strategies: dict[str, dict[str, Strategy]] = {
        "reparameterised": {"z": PATH},
        "score": {"z": SCORE},
        "leave-one-out": {"z": LEFT},
    }
    return World("gamma", wide(0.2, 0.6, 0.4), data, model, guide, strategies, atoms, sleep)


def flips() -> World:
    """Two binary causes, the second of which depends on the first, and what they bring about."""
    data = {"x": wide(1.0)[0]}

    def causes(at: Tensor, a: Tensor) -> tuple[Bernoulli, Bernoulli]:
        return Bernoulli(wide(0.3)[0]), Bernoulli(logits=at[..., 0] - 1.2 * a)

    def effect(at: Tensor, a: Tensor, b: Tensor) -> Bernoulli:
        return Bernoulli(logits=at[..., 1] + 1.5 * a + 0.8 * b - 2.1 * a * b)

    def guesses(at: Tensor, a: Tensor, x: Tensor) -> tuple[Bernoulli, Bernoulli]:
        return Bernoulli(logits=at[..., 2] + 0.5 * x), Bernoulli(logits=at[..., 3] + at[..., 4] * a - 0.7 * x)

    def model(at: Tensor) -> Callable[[], Any]:
        def flips_model() -> Any:
            a = yield Sample(causes(at, wide(0.0)[0])[0], "a")
            b = yield Sample(causes(at, a)[1], "b")
            yield Sample(effect(at, a, b), "x")

        return flips_model

    def guide(at: Tensor, seen: Seen) -> Callable[[], Any]:
        def flips_guide() -> Any:
            a = yield Sample(guesses(at, wide(0.0)[0], seen["x"])[0], "a")
            yield Sample(guesses(at, a, seen["x"])[1], "b")

        return flips_guide

    table = wide(*product((0.0, 1.0), repeat=3))
    sure = wide(*product((0.0, 1.0), repeat=2))

    def logs(at: Tensor, still: Tensor, a: Tensor, b: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """log q and log p."""
        by_p, by_q = causes(still, a), guesses(at, a, x)
        p = by_p[0].log_prob(a) + by_p[1].log_prob(b) + effect(still, a, b).log_prob(x)
        return by_q[0].log_prob(a) + by_q[1].log_prob(b), p

    def atoms(at: Tensor) -> Atoms:
        q, p = logs(at, at, sure[:, 0], sure[:, 1], data["x"])
        return torch.ones_like(q), q, p

    def sleep(at: Tensor) -> Tensor:
        q, p = logs(at, at.detach(), *table.T)
        return (p.exp() * q).sum()

    strategies: dict[str, dict[str, Strategy]] = {
        "enumeration": {"a": ALL, "b": ALL, "x": ALL},
        "score": {"a": SCORE, "b": SCORE},
        "leave-one-out": {"a": LEFT, "b": LEFT},
        "weak derivative": {"a": WEAK, "b": WEAK},
        "mixed, enumeration then score": {"a": ALL, "b": SCORE},
        "mixed, score then enumeration": {"a": SCORE, "b": ALL},
        "mixed, baseline then weak derivative": {"a": Score(-1.0), "b": WEAK},
    }
    return World("flips", wide(0.4, -0.6, 0.3, -0.2, 0.7), data, model, guide, strategies, atoms, sleep)


def mixture() -> World:
    """Which of two clusters, where in it, and what is seen of that."""
    data = {"x": wide(0.6)[0]}

    def place(at: Tensor, c: Tensor) -> Normal:
        return Normal(at[..., 0] + 2.5 * c, 0.5 + 0.9 * c)

    def member(at: Tensor, x: Tensor) -> Bernoulli:
        return Bernoulli(logits=at[..., 1] + 0.8 * x)

    def where(at: Tensor, c: Tensor, x: Tensor) -> Normal:
        return Normal(at[..., 2] + at[..., 3] * c + 0.4 * x, (at[..., 4] + 0.3 * c).exp())

    def model(at: Tensor) -> Callable[[], Any]:
        def mixture_model() -> Any:
            c = yield Sample(Bernoulli(wide(0.35)[0]), "c")
            z = yield Sample(place(at, c), "z")
            yield Sample(Normal(z, 0.7), "x")

        return mixture_model

    def guide(at: Tensor, seen: Seen) -> Callable[[], Any]:
        def mixture_guide() -> Any:
            c = yield Sample(member(at, seen["x"]), "c")
            yield Sample(where(at, c, seen["x"]), "z")

        return mixture_guide

    line = torch.linspace(-9, 11, 401, dtype=WIDE)
    step = float(line[1] - line[0])
    c, z = wide(0.0, 1.0)[:, None], line

    def atoms(at: Tensor) -> Atoms:
        q = member(at, data["x"]).log_prob(c) + where(at, c, data["x"]).log_prob(z)
        p = Bernoulli(wide(0.35)[0]).log_prob(c) + place(at, c).log_prob(z) + Normal(z, 0.7).log_prob(data["x"])
        return torch.full((q.numel(),), step, dtype=WIDE), q.reshape(-1), p.reshape(-1)

    def sleep(at: Tensor) -> Tensor:
        x = torch.linspace(-12, 14, 261, dtype=WIDE)[:, None, None]
        p = Bernoulli(wide(0.35)[0]).log_prob(c) + place(at.detach(), c).log_prob(z) + Normal(z, 0.7).log_prob(x)
        q = member(at, x).log_prob(c) + where(at, c, x).log_prob(z)
        return (p.exp() * q).sum() * step * 0.1

    strategies: dict[str, dict[str, Strategy]] = {
        "mixed, enumeration then reparameterised": {"c": ALL, "z": PATH},
        "mixed, score then reparameterised": {"c": SCORE, "z": PATH},
        "mixed, enumeration then score": {"c": ALL, "z": SCORE},
        "mixed, weak derivative then score": {"c": WEAK, "z": SCORE},
        "mixed, leave-one-out then reparameterised": {"c": LEFT, "z": PATH},
        "score": {"c": SCORE, "z": SCORE},
    }
    return World("mixture", wide(-0.4, 0.2, 0.1, 0.9, -0.3), data, model, guide, strategies, atoms, sleep)


WORLDS = (gaussian, gamma, flips, mixture)
OBJECTIVES = ("ELBO", "IWELBO", "wake-sleep", "log-variance")


def gradients(world: World, name: str, by: Mapping[str, Strategy], draws: int, seed: int) -> Tensor:
    """The gradient of every draw for itself, (draws, d); in parts, for branches take memory."""
    found = []
    for part, size in enumerate([PART] * (draws // PART) + [draws % PART] * (draws % PART > 0)):
        at = world.start.expand(size, -1).clone().requires_grad_()
        value = vi.estimate(world.objective(name, at, by), size, seed + 1_000 * part)
        found.append(torch.autograd.grad(value.sum(), at)[0])
    return torch.cat(found)


def evaluations(world: World, by: Mapping[str, Strategy]) -> int:
    """Of guide and model, for one draw of the ELBO."""
    ledger = Ledger()
    vi.estimate(world.objective("ELBO", world.start[None], by), 1, ledger=ledger)
    return ledger.spent.evaluations


def truth(world: World, name: str) -> Tensor:
    """The gradient of the exact objective, (d,)."""
    at = world.start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(world.exact(name, at), at)
    return gradient


def errors(found: Tensor, exact: Tensor) -> Tensor:
    """Standard errors between the mean of gradients (draws, d) and the exact one; 0 where both are the same."""
    apart = found.mean(0) - exact
    spread = found.std(0) / math.sqrt(len(found))
    return torch.where(apart.abs() < 1e-9, 0.0, apart.abs() / spread.clamp(min=1e-12))
