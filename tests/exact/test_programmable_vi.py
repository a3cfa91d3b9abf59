"""Gradients of objectives as programs against enumeration, quadrature and closed forms.

Means of random gradients are held to 5 standard errors: about 600 comparisons with fixed seeds, of which one in 3,000
runs would fail by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gamma,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
    kl_divergence,
)

from anystep import Budget, UsageError
from anystep.bayes import measure, vi
from anystep.bayes.vi import Enumerate, Expect, Implicit, LeaveOneOut, Reparameterise, Sample, Score, WeakDerivative
from anystep.experiments import _variational as worlds
from anystep.experiments import _variational_constructs as constructs
from anystep.experiments import programmable_vi as experiment
from anystep.experiments._variational_steps import pairs
from anystep.ledger import Ledger

DRAWS = 3_000
MADE = {make.__name__: make() for make in worlds.WORLDS}
CASES = [(name, by) for name, world in MADE.items() for by in world.strategies]


@cache
def truth(world: str, name: str) -> Tensor:
    return worlds.truth(MADE[world], name)


@pytest.mark.parametrize("name", worlds.OBJECTIVES)
@pytest.mark.parametrize(("world", "by"), CASES)
def test_the_mean_gradient_is_the_gradient_of_the_mean(world: str, by: str, name: str) -> None:
    strategies = MADE[world].strategies[by]
    draws = 500 if name == "IWELBO" and any(isinstance(s, LeaveOneOut) for s in strategies.values()) else DRAWS
    found = worlds.gradients(MADE[world], name, strategies, draws, seed=3)
    assert worlds.errors(found, truth(world, name)).max() < 5


def test_enumeration_is_exact() -> None:
    assert experiment.enumerated() < 1e-12


@pytest.mark.parametrize("name", worlds.OBJECTIVES)
def test_enumeration_gives_the_objective_itself(name: str) -> None:
    world = MADE["flips"]
    value = vi.estimate(world.objective(name, world.start[None], world.strategies["enumeration"]))
    assert value.item() == pytest.approx(world.exact(name, world.start).item(), abs=1e-12)


def test_a_value_that_is_not_detached_is_caught_by_the_same_test() -> None:
    assert experiment.caught(seed=0, draws=DRAWS) > 8


def test_the_quadrature_agrees_with_closed_forms() -> None:
    world = MADE["gamma"]
    theta, shape, rate = world.start[0].exp().item(), world.start[1].exp().item() + 2.0, world.start[2].exp().item()
    mean, log = shape / rate, special.digamma(shape) - math.log(rate)
    prior = 2 * math.log(1.5) + log - 1.5 * mean
    seen = 4 * (math.log(theta) + log) - theta * mean - math.log(24)
    assert world.exact("ELBO", world.start).item() == pytest.approx(
        prior + seen + stats.gamma(shape, scale=1 / rate).entropy(), abs=1e-6
    )
    world = MADE["gaussian"]
    at = world.start
    turn, noise = worlds.wide([1.0, 0.5], [-0.3, 0.8]), worlds.wide([0.6, 0.25], [0.25, 0.9])
    x, one = world.data["x"], at[3].exp()
    prior_mean, prior_root = worlds.wide(0.4, -0.02), worlds.wide([1.2, 0.0], [0.84, 0.8])
    first = at[2] + 0.4 * x[0] - 0.2 * x[1]
    mean_q = torch.stack([first, at[4] + at[5] * first + 0.3 * x[1]])
    root_q = torch.stack([torch.stack([one, 0 * one]), torch.stack([at[5] * one, at[6].exp()])])
    cover = prior_root @ prior_root.T
    evidence = MultivariateNormal(turn @ prior_mean + at[:2], turn @ cover @ turn.T + noise).log_prob(x)
    gain = cover @ turn.T @ torch.linalg.inv(turn @ cover @ turn.T + noise)
    posterior = MultivariateNormal(
        prior_mean + gain @ (x - turn @ prior_mean - at[:2]), (lambda s: (s + s.T) / 2)(cover - gain @ turn @ cover)
    )
    closed = evidence - kl_divergence(MultivariateNormal(mean_q, scale_tril=root_q), posterior)
    assert world.exact("ELBO", at).item() == pytest.approx(closed.item(), abs=1e-6)


def test_a_vector_is_one_choice() -> None:
    """The KL divergence of correlated normals, by a site that draws both numbers."""
    target = MultivariateNormal(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 2.0]]))
    root = torch.tensor([[0.8, 0.0], [-0.5, 1.3]])

    def nearness(mean: Tensor, by: vi.Strategy) -> vi.expectations.Objective:
        def model() -> Any:
            yield Sample(target, "z")

        def guide() -> Any:
            yield Sample(MultivariateNormal(mean, scale_tril=root), "z", by)

        return vi.elbo(model, guide)

    mean = torch.tensor([0.2, 0.4], requires_grad=True)
    (exact,) = torch.autograd.grad(-kl_divergence(MultivariateNormal(mean, scale_tril=root), target), mean)
    for by in (Reparameterise(), Score(), LeaveOneOut(2)):
        each = mean.detach().expand(DRAWS, 2).clone().requires_grad_()
        (found,) = torch.autograd.grad(vi.estimate(nearness(each, by), DRAWS, 1).sum(), each)
        assert worlds.errors(found, exact).max() < 5


def only(distribution: Distribution, by: vi.Strategy, of: Callable[[Tensor], Tensor]) -> vi.expectations.Objective:
    def guide() -> Any:
        yield Sample(distribution, "x", by)

    def objective() -> Any:
        trace, _ = yield from vi.simulate(guide)
        return of(trace["x"])

    return objective


def test_implicit_derivatives_of_a_skewed_mixture() -> None:
    at = torch.tensor([0.3, -0.4, 0.9], dtype=torch.float64)

    def bells(at: Tensor) -> MixtureSameFamily:
        part = torch.stack([torch.zeros_like(at[..., 0]), at[..., 0]], -1)
        mean = torch.stack([at[..., 1], at[..., 2] + 1], -1)
        return MixtureSameFamily(Categorical(logits=part), Normal(mean, torch.tensor([0.4, 1.5], dtype=at.dtype)))

    def f(x: Tensor) -> Tensor:
        return torch.sin(x) + 0.3 * x**2

    point, line = at.clone().requires_grad_(), torch.linspace(-9, 12, 4_001, dtype=at.dtype)
    mean = torch.trapezoid(bells(point).log_prob(line).exp() * f(line), line)
    (exact,) = torch.autograd.grad(mean, point)
    each = at.expand(DRAWS, 3).clone().requires_grad_()
    (found,) = torch.autograd.grad(vi.estimate(only(bells(each), Implicit(), f), DRAWS, 2).sum(), each)
    assert worlds.errors(found, exact).max() < 5


@pytest.mark.parametrize("by", [WeakDerivative(), Score(2.0), LeaveOneOut(4)])
def test_a_count_that_cannot_be_enumerated(by: vi.Strategy) -> None:
    counts, rate = torch.arange(60, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad((Poisson(rate).log_prob(counts).exp() * torch.log1p(counts)).sum(), rate)
    each = rate.detach().expand(DRAWS).clone().requires_grad_()
    (found,) = torch.autograd.grad(vi.estimate(only(Poisson(each), by, torch.log1p), DRAWS, 4).sum(), each)
    assert worlds.errors(found[:, None], exact[None]).max() < 5


def test_estimates_of_densities_are_unbiased_on_both_sides() -> None:
    sides = {**experiment.marginal_sides(0, DRAWS), **experiment.normalise_sides(0, DRAWS)}
    assert len(sides) == 4 and max(sides.values()) < 5


def test_a_bound_is_looser_than_what_it_bounds_and_tightens() -> None:
    """The mean logarithms of a marginal's estimates: too low where it scores, too high where it draws."""
    exact = math.log(float(constructs.kept_mass(constructs.START, 1.0)))
    draws, gaps = 20_000, []
    at = constructs.START.expand(draws, -1)
    for n in (1, 2, 4):
        low = constructs.scores(constructs.forgetful(at, n), "b", 1.0, draws, 1).log().mean().item()
        kept, density = constructs.drawn(constructs.forgetful(at, n), draws, 1)
        high = density[kept == 1].log().mean().item()
        assert low < exact < high
        gaps.append(high - low)
    assert gaps[0] > gaps[1] > gaps[2]


@pytest.mark.parametrize("name", constructs.BOUNDS)
def test_gradients_go_through_constructs(name: str) -> None:
    objective, exact = constructs.BOUNDS[name]
    at = constructs.START.expand(DRAWS, -1).clone().requires_grad_()
    value = vi.estimate(objective(at), DRAWS, 5)
    (found,) = torch.autograd.grad(value.sum(), at)
    point = constructs.START.clone().requires_grad_()
    right = exact(point)
    assert abs(value.mean() - right) < 5 * value.std() / math.sqrt(DRAWS)
    (gradient,) = torch.autograd.grad(right, point)
    assert worlds.errors(found, gradient).max() < 5


def test_constructs_are_choices_of_larger_programs() -> None:
    at = constructs.START[None]

    def whole() -> Any:
        inner = yield vi.Inner(constructs.forgetful(at, 200, Score()))
        yield Sample(Bernoulli(0.2 + 0.5 * inner["b"]), "c")

    def objective() -> Any:
        return (yield from vi.density(whole, {"b": worlds.wide(1.0), "c": worlds.wide(1.0)}))

    exact = float(constructs.kept_mass(constructs.START, 1.0)) * 0.7
    assert vi.estimate(objective).exp().item() == pytest.approx(exact, rel=0.1)

    def drawing() -> Any:
        trace, _ = yield from vi.simulate(whole)
        assert sorted(trace) == ["b", "c"]
        return trace["b"] + trace["c"]

    assert vi.estimate(drawing, 5).shape == (5,)


def test_a_finite_program_is_a_program_of_bayes() -> None:
    world = MADE["flips"]
    seen = vi.condition(world.model(world.start), world.data)
    table = measure(vi.finite(seen))
    weight, _, p = world.atoms(world.start)
    masses = [table[("a", a), ("b", b)] for a in (0.0, 1.0) for b in (0.0, 1.0)]
    assert masses == pytest.approx((weight * p.exp()).tolist(), rel=1e-12)


def test_an_estimate_is_only_used_where_it_stays_unbiased() -> None:
    flip = only(Bernoulli(torch.tensor(0.3)), Score(), lambda x: x)

    def squared() -> Any:
        mean = yield Expect(flip)
        return mean * mean

    def logarithm() -> Any:
        return torch.log((yield Expect(flip)))

    def inverse() -> Any:
        return torch.ones(1) / (yield Expect(flip))

    def allowed() -> Any:
        a, b = (yield Expect(flip)), (yield Expect(flip))
        return 1 - torch.tensor(2.0) * a * b / 4 + (torch.ones(1) - (-a)) - b

    with pytest.raises(UsageError, match="share draws"):
        vi.estimate(squared)
    with pytest.raises(UsageError, match="log of an Estimate is biased"):
        vi.estimate(logarithm)
    with pytest.raises(UsageError, match="of an Estimate is biased"):
        vi.estimate(inverse)
    values = vi.estimate(allowed, DRAWS)
    assert abs(values.mean() - (2 - 0.5 * 0.09)) < 5 * values.std() / math.sqrt(DRAWS)


def test_scores_under_expect_leave_the_rest_alone() -> None:
    """The other term's noise is not multiplied by a score that it has nothing to do with."""
    p = torch.tensor(0.3).expand(DRAWS).clone().requires_grad_()
    far = only(Normal(torch.tensor(0.0), 100.0), Score(), lambda x: x)

    def near() -> Any:
        return (yield from only(Bernoulli(p), Score(), lambda x: x)())

    def together() -> Any:
        return (yield from near()) + (yield from far())

    def apart() -> Any:
        return (yield Expect(near)) + (yield Expect(far))

    spreads = [torch.autograd.grad(vi.estimate(o, DRAWS).sum(), p)[0].std() for o in (together, apart)]
    assert spreads[0] > 20 * spreads[1]


def test_programs_cost_what_their_rows_are() -> None:
    world, costs = MADE["flips"], []
    for name in ("score", "enumeration", "leave-one-out"):
        ledger = Ledger()
        vi.estimate(world.objective("ELBO", world.start[None], world.strategies[name]), 10, ledger=ledger)
        costs.append({owner: cost.evaluations for owner, cost in ledger.by.items()})
    assert costs == [{"flips_guide": 10 * n, "flips_model": 10 * n} for n in (1, 4, 9)]


def fitting() -> tuple[vi.expectations.Objective, nn.ParameterDict, float]:
    """A skewed conjugate posterior, which the guide can reach, and the log evidence."""
    at = nn.ParameterDict({"shape": nn.Parameter(torch.tensor(0.0)), "rate": nn.Parameter(torch.tensor(0.0))})

    def model() -> Any:
        z = yield Sample(Gamma(2.0, 1.5), "z")
        yield Sample(Poisson(z), "x")

    def guide() -> Any:
        yield Sample(Gamma(at["shape"].exp(), at["rate"].exp()), "z")

    evidence = integrate.quad(lambda z: stats.gamma(2, scale=1 / 1.5).pdf(z) * stats.poisson(z).pmf(4), 0, 60)[0]
    return vi.elbo(vi.condition(model, {"x": torch.tensor(4.0)}), guide), at, math.log(evidence)


def test_fit_finds_a_conjugate_posterior() -> None:
    objective, at, evidence = fitting()
    state = torch.random.get_rng_state()
    found = vi.fit(objective, at, steps=300, seed=1, draws=16, rate=0.05)
    assert torch.equal(state, torch.random.get_rng_state())
    assert at["shape"].exp().item() == pytest.approx(6.0, rel=0.1)
    assert at["rate"].exp().item() == pytest.approx(2.5, rel=0.1)
    assert found.history.shape == (300,) and found.history[:5].mean() < evidence - 0.5
    assert found.history[-50:].mean().item() == pytest.approx(evidence, abs=0.05)
    assert found.ledger.spent.evaluations == 300 * 16 * 2 and found.ledger.refused is None


def test_fit_is_reproducible_and_keeps_its_budget() -> None:
    histories = []
    for budget in (None, Budget(evaluations=1_000)):
        objective, at, _ = fitting()
        found = vi.fit(objective, at, steps=40, seed=2, draws=16, budget=budget)
        histories.append(found.history)
        spent = found.ledger.spent.evaluations
        assert found.ledger.refused == (None if budget is None else "evaluations")
    assert len(histories[1]) == 1_000 // 32 and torch.equal(histories[0][: len(histories[1])], histories[1])
    assert spent <= 1_000


def test_steps_by_hand_are_the_same_steps() -> None:
    """What is timed computes the same: equal noise gives equal gradients."""
    for pair in pairs():
        gradients = []
        for run in (pair._programs, pair.by_hand):
            with vi.machine.seeded(3):
                gradients.append(torch.autograd.grad(run().mean(), pair.parameters))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
        assert len(pair.ratios(2, warm=0)) == 2


def test_calls_that_cannot_be_meant_say_what_was() -> None:
    world = MADE["flips"]
    at = world.start[None]
    model, guide = world.model(at), world.guide(at, world.data)
    seen, trace = vi.condition(model, world.data), {"z": torch.zeros(3)}

    def wide_normal() -> Any:
        yield Sample(Normal(torch.zeros(3), 1.0), "z")

    def twice() -> Any:
        yield Sample(Bernoulli(0.5), "z")
        yield Sample(Bernoulli(0.5), "z")

    def vector() -> Any:
        yield Sample(Independent(Normal(torch.zeros(3), 1.0), 1), "z")

    def shaped() -> Any:
        trace, _ = yield from vi.simulate(vector)
        return trace["z"]

    def triple() -> Any:
        return (yield from vi.density(vector, {"z": torch.zeros(3)})) + torch.zeros(3)

    def foreign() -> Any:
        yield "sample"

    cases: list[tuple[str, Callable[[], Any]]] = [
        ("never samples 'b'", lambda: vi.estimate(lambda: vi.density(vector, {"z": torch.zeros(3), "b": at}))),
        ("the trace lacks", lambda: vi.estimate(lambda: vi.density(model, {"a": torch.ones(1)}))),
        ("condition\\(\\) observes", lambda: vi.estimate(lambda: vi.density(vi.condition(vector, {"y": at}), trace))),
        ("has factors", lambda: vi.estimate(lambda: vi.simulate(seen))),
        ("Independent\\(Normal", lambda: vi.estimate(lambda: vi.simulate(wide_normal), 5)),
        ("Independent\\(Normal", lambda: vi.estimate(lambda: vi.simulate(wide_normal), 1)),
        ("Independent\\(Normal", lambda: vi.estimate(shaped, 5)),
        ("one number a draw", lambda: vi.estimate(triple, 5)),
        ("sampled twice", lambda: vi.estimate(lambda: vi.simulate(twice))),
        ("An objective yields", lambda: vi.estimate(guide)),
        ("A program yields", lambda: vi.estimate(lambda: vi.simulate(foreign))),
        ("generator function", lambda: vi.estimate(lambda: vi.simulate(lambda: None))),
        ("at_once=False", lambda: vi.estimate(vi.iwelbo(seen, vi.using(guide, Enumerate()), 2))),
        ("no function of noise", lambda: vi.estimate(vi.elbo(seen, vi.using(guide, Reparameterise())))),
        ("no finite support", lambda: vi.estimate(vi.elbo(vector, vi.using(vector, Enumerate())))),
        ("WeakDerivative\\(\\) knows", lambda: vi.estimate(vi.elbo(vector, vi.using(vector, WeakDerivative())))),
        ("has no cdf", lambda: vi.estimate(vi.elbo(vector, vi.using(vector, Implicit())))),
        ("finite\\(program\\)", lambda: measure(vi.finite(vector))),
        ("2 or more", lambda: LeaveOneOut(1)),
        ("1 or more", lambda: vi.estimate(vi.iwelbo(seen, guide, 0))),
        ("1 or more", lambda: vi.estimate(vi.elbo(seen, guide), draws=0)),
        ("keep=\\['z'\\]", lambda: vi.marginal(model, "a", lambda kept: guide)),
        ("1 or more", lambda: vi.normalise(seen, guide, 0)),
        ("keeps 'q'", lambda: vi.estimate(lambda: vi.simulate(vi.marginal(guide, ["q"], lambda kept: guide)))),
        ("fixed\\(program\\)", lambda: vi.fixed(constructs.forgetful(at, 1))),  # type: ignore[arg-type]
        ("a torch distribution and its address", lambda: Sample("z", Normal(0.0, 1.0))),  # type: ignore[arg-type]
        ("nn.Parameter", lambda: vi.fit(vi.elbo(seen, guide), {"a": at}, 1)),  # type: ignore[dict-item]
        ("depends on a parameter", lambda: vi.fit(vi.elbo(vector, vector), {"a": nn.Parameter(at)}, 1)),
        ("1 or more", lambda: vi.fit(vi.elbo(vector, vector), {"a": nn.Parameter(at)}, 0)),
    ]
    for message, call in cases:
        with pytest.raises(UsageError, match=message):
            call()


def test_the_experiment_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "WORLDS", (worlds.flips,))
    said: list[str] = []
    result = experiment.run(seed=1, progress=said.append, draws=1_000, repeats=2)
    assert len(result.checks) == 13 and len(said) > 5
    assert all(check.passed for check in result.checks if "step time" not in check.clause)
