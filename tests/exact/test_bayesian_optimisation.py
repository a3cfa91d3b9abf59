"""Bayesian optimisation and its surrogates against quadrature, closed forms and their own members."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from scipy.stats import norm

from anystep.bayes.covariance import Matern
from anystep.bayes.gaussian_process import GaussianProcess
from anystep.bayes.optimise import (
    HMC,
    SGHMC,
    BayesianOptimiser,
    BNNSurrogate,
    DeepKernelSurrogate,
    EnsembleSurrogate,
    GPSurrogate,
    InfiniteWidth,
    InfiniteWidthSurrogate,
    Network,
    log_expected_improvement,
    minimise,
    minimise_many,
    suggest,
)
from anystep.bayes.optimise.surrogates import FewNetworks, Networks
from anystep.errors import UsageError
from anystep.experiments import bnn_surrogates as experiment
from anystep.ledger import Budget

SMALL = Network(width=6, depth=1)
QUICK = {
    "gp": GPSurrogate(restarts=2, updates=15),
    "infinite": InfiniteWidthSurrogate(updates=10),
    "ensemble": EnsembleSurrogate(SMALL, members=4, updates=40),
    "deep kernel": DeepKernelSurrogate(SMALL, updates=40),
    "hmc": BNNSurrogate(SMALL, HMC(warm=5, draws=6, leaps=5), chains=2, updates=20),
    "sghmc": BNNSurrogate(SMALL, SGHMC(warm=20, draws=6, thin=2), chains=2, updates=20),
}


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowl(x):
    return (x[..., 0] - 0.3) ** 2 + 3 * (x[..., 1] - 0.8) ** 2 + x[..., 0] * x[..., 1]


# The network and its limit


def test_a_network_is_its_layers():
    net, x = Network(3, 2, "relu", weights=5.0, biases=0.7), normals(4, 2)
    theta = normals(net.size(2), seed=1)
    assert len(theta) == 2 * 3 + 3 + 3 * 3 + 3 + 3 + 1
    w = [theta[:6].view(2, 3), theta[9:18].view(3, 3), theta[21:24].view(3, 1)]
    b = [theta[6:9], theta[18:21], theta[24:]]
    h = x
    for i in range(3):
        h = h @ w[i] * (5.0 / len(w[i])) ** 0.5 + b[i] * 0.7**0.5
        h = h.clamp_min(0) if i < 2 else h
        if i == 1:
            torch.testing.assert_close(net.features(theta, x), h)
    torch.testing.assert_close(net(theta, x), h[:, 0])


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_infinite_kernel_is_the_quadrature_of_its_recursion(activation, depth):
    """Each layer's expectation of a product of activations by Gauss and Hermite, over two correlated normals."""
    kernel, x = InfiniteWidth(depth, activation, 3.0, 0.4), normals(3, 4) * torch.tensor([2.0, 0.3, 1.0, 1.0])
    act = {"relu": lambda v: np.maximum(v, 0), "erf": lambda v: torch.erf(torch.tensor(v)).numpy()}[activation]
    nodes, weights = hermegauss(120)
    weights = np.outer(weights, weights) / (2 * np.pi)
    k = 0.4 + 3.0 * (x @ x.T / 4).numpy()
    for _ in range(depth):
        after = np.zeros_like(k)
        for i, j in np.ndindex(3, 3):
            r = k[i, j] / np.sqrt(k[i, i] * k[j, j])
            first = np.sqrt(k[i, i]) * nodes[:, None]
            second = np.sqrt(k[j, j]) * (r * nodes[:, None] + np.sqrt(max(0.0, 1 - r * r)) * nodes)
            after[i, j] = 0.4 + 3.0 * (weights * act(first) * act(second)).sum()
        k = after
    np.testing.assert_allclose(kernel(x), k, rtol=2e-2 if activation == "relu" else 1e-3)  # corners slow quadrature
    np.testing.assert_allclose(kernel(x, x[:2]), kernel(x)[:, :2], rtol=1e-9)
    np.testing.assert_allclose(kernel.diagonal(x), kernel(x).diagonal(), rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_wide_networks_have_the_infinite_kernel(activation):
    """A cheap sample of the experiment: 40 networks of width 256; over seeds 0 to 5 the error was 0.004 to 0.038."""
    error, each, (low, high) = experiment.frobenius(Network(256, 2, activation), 40, seed=1)
    assert error < 0.1 and low <= error <= high
    assert experiment.covariance_error(each, Network(256, 2, "relu" if activation == "erf" else "erf")) > 0.3


def test_the_written_gradient_is_automatic_differentiations():
    for activation in ("relu", "erf"):
        net = Network(5, 3, activation, weights=2.0, biases=0.3)
        theta, x, y = normals(4, 2, net.size(3)).requires_grad_(), normals(2, 7, 3), normals(2, 7, seed=1)
        value, slope = net.log_density(theta, x, y, 0.3)
        density = -0.5 * ((net(theta, x) - y).square().sum(-1) / 0.3 + theta.square().sum(-1))
        torch.testing.assert_close(value, density)
        torch.testing.assert_close(slope, torch.autograd.grad(density.sum(), theta)[0])


# Samplers


def sloped(density):
    """A log density with its gradient."""

    def target(theta):
        place = theta.detach().requires_grad_()
        value = density(place)
        return value.detach(), torch.autograd.grad(value.sum(), place)[0]

    return target


@pytest.mark.parametrize(("inference", "off"), [(HMC(100, 250, 12, step=0.2), 0.12), (SGHMC(300, 250, 8, 0.1), 0.2)])
def test_samplers_find_a_normal_that_is_not_diagonal(inference, off):
    """16 chains on each of two normals of different shape, in one batch."""
    roots = torch.tensor([[[1.0, 0.0], [0.8, 0.4]], [[0.3, 0.0], [-1.0, 2.0]]])
    means = torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    precision = torch.linalg.inv(roots @ roots.mT)

    def target(theta):
        rest = theta - means
        return -0.5 * torch.einsum("...i,...ij,...j->...", rest, precision, rest)

    drawn = inference(sloped(target), torch.zeros(16, 2, 2), torch.Generator().manual_seed(0))
    assert drawn.shape == (250, 16, 2, 2)
    flat = drawn.flatten(0, 1)
    sd = (roots @ roots.mT).diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((flat.mean(0) - means) / sd).abs().max() < off
    for i in range(2):
        theirs = torch.cov(flat[:, i].T) / (sd[i] * sd[i][:, None])
        torch.testing.assert_close(theirs, (roots @ roots.mT)[i] / (sd[i] * sd[i][:, None]), atol=2 * off, rtol=0)


def test_hmc_finds_a_skewed_density():
    """exp(x - e^x) has mean -0.5772 and variance 1.6449; 8,000 draws, of which the least effective quarter counts."""
    drawn = HMC(100, 250, 10, step=0.3)(
        sloped(lambda t: (t - t.exp()).sum(-1)), torch.zeros(32, 1), torch.Generator().manual_seed(1)
    )
    assert abs(drawn.mean().item() + 0.5772) < 5 * (1.6449 / 2_000) ** 0.5
    assert abs(drawn.var().item() - 1.6449) < 0.35


# Beliefs


@pytest.mark.parametrize("name", QUICK)
def test_beliefs_learn_and_have_the_shapes(name):
    x, new = normals(3, 12, 2), normals(5, 3, 4, 2, seed=1)
    y = torch.stack([x[0, :, 0], -2 * x[1, :, 1], 0.5 * x[2, :, 0] - x[2, :, 1]])
    belief = QUICK[name].fit(x, y, seed=2)
    mean, variance = belief.predict(new)
    drawn = belief.sample(new, 7, seed=3)
    assert mean.shape == variance.shape == (5, 3, 4) and drawn.shape == (7, 5, 3, 4)
    assert (variance >= 0).all()
    assert (belief.predict(x)[0] - y).square().mean() < 0.5 * y.var()
    assert torch.equal(belief.sample(new, 7, seed=3), drawn)
    alone = belief.sample(new[2], 7, seed=3)
    torch.testing.assert_close(alone, drawn[:, 2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gp", "infinite", "ensemble", "deep kernel"])
def test_a_batch_of_surrogates_is_its_members(name):
    x, y, new = normals(2, 9, 2), normals(2, 9, seed=1), normals(4, 2, seed=2)
    mean = QUICK[name].fit(x, y).predict(new[None].expand(2, 4, 2))[0]
    for i in range(2):
        torch.testing.assert_close(QUICK[name].fit(x[i], y[i]).predict(new)[0], mean[i], atol=2e-3, rtol=2e-3)


def test_few_networks_are_read_as_a_normal():
    """40,000 draws: the mean and covariance of the members, within 5 standard errors."""
    theta, x = normals(5, SMALL.size(2)), normals(3, 2, seed=1)
    members = Networks(SMALL, theta).outputs(x)
    drawn = FewNetworks(SMALL, theta).sample(x, 40_000)
    sd = members.std(0)
    assert ((drawn.mean(0) - members.mean(0)) / sd).abs().max() < 5 / 200
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(members.T), atol=0.04 * sd.max().item() ** 2, rtol=0)


# Where to look


def test_expected_improvement_is_the_closed_form():
    """One point: (best - mean) Phi(z) + sd phi(z), at the draws' standard error times 5."""
    x, y = normals(6, 2), normals(6, seed=1)
    posterior, new = GaussianProcess(Matern(torch.ones(2)), 0.01).given(x, y), normals(5, 1, 2, seed=2)
    mean, variance = (v[:, 0] for v in posterior.predict(new))
    best = y.min()
    z = (best - mean) / variance.sqrt()
    exact = (best - mean) * norm.cdf(z) + variance.sqrt() * norm.pdf(z)
    ours = log_expected_improvement(posterior, new, best, 40_000).exp()
    assert ((ours - exact).abs() < 5 * variance.sqrt() / 200 + 1e-3).all()


def test_two_points_together_are_worth_more_than_one_and_less_than_both():
    x, y = normals(6, 2), normals(6, seed=1)
    posterior, pair = GaussianProcess(Matern(torch.ones(2)), 0.01).given(x, y), normals(2, 2, seed=2)
    both = log_expected_improvement(posterior, pair, y.min(), 20_000).exp()
    each = log_expected_improvement(posterior, pair[:, None], y.min(), 20_000).exp()
    assert each.max() < both < each.sum()


def test_far_below_the_best_there_is_still_a_slope():
    posterior = GaussianProcess(Matern(torch.ones(1), 0.01), 1e-6).given([[0.0]], [0.0])
    place = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    log = log_expected_improvement(posterior, place, torch.tensor(-50.0))
    log.backward()
    assert math.isfinite(log.item()) and log < -1e3 and place.grad.abs().item() > 0


@pytest.mark.parametrize("name", QUICK)
def test_suggestions_are_points_of_the_cube_for_each_function(name):
    x = torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(0)).double()
    y = torch.stack([bowl(x[0]), bowl(1 - x[1])])
    y[0, 3] = math.nan  # a failed evaluation
    new = suggest(QUICK[name], x, y, q=2, seed=1, draws=16, raw=16, restarts=2, iterations=3)
    assert new.shape == (2, 2, 2) and ((new >= 0) & (new <= 1)).all()
    assert torch.equal(new, suggest(QUICK[name], x, y, 2, 1, draws=16, raw=16, restarts=2, iterations=3))


# The harness


def test_minimise_finds_the_bottom_of_a_bowl_in_its_own_units():
    """A grid of 400 x 400 points is the oracle."""
    bounds = [(-4.0, 1.0), (0.5, 30.0)]

    def function(p):
        return (p[0] + 1.3) ** 2 + 0.05 * (p[1] - 9.0) ** 2 + 0.1 * p[0] * p[1]

    grid = np.meshgrid(np.linspace(-4, 1, 400), np.linspace(0.5, 30, 400))
    found = minimise(function, bounds, 16, QUICK["gp"], seed=3)
    assert found.y < function(grid).min() + 0.05 and found.y == found.ys.min() == function(found.x)
    assert found.cost.evaluations == len(found.ys) == 16 and found.stopped_because == "evaluations"
    assert (found.xs >= [-4, 0.5]).all() and (found.xs <= [1, 30]).all() and not found.errors


def test_many_runs_at_once_are_the_runs():
    """To float rounding, in the first suggestions: what follows depends on them."""
    x, y = minimise_many(bowl, 2, 9, QUICK["gp"], seeds=(4,), start=6)
    alone = minimise(lambda p: float(bowl(torch.tensor(p))), [(0, 1)] * 2, 9, QUICK["gp"], seed=4, start=6)
    np.testing.assert_allclose(alone.xs, x[0], atol=1e-6)
    np.testing.assert_allclose(alone.ys, y[0], atol=1e-6)
    pairs, _ = minimise_many(bowl, 2, 9, QUICK["gp"], seeds=(4, 5), start=6, q=2)
    assert pairs.shape == (2, 9, 2) and torch.equal(pairs[0, :6], x[0, :6])


def test_failures_lose_nothing_else():
    calls = []

    def function(p):
        calls.append(p)
        if len(calls) == 2:
            raise ValueError("the oven is off")
        return math.inf if len(calls) in (3, 8) else float(p[0])

    found = minimise(function, [(0.0, 1.0)], 9, QUICK["infinite"])
    assert len(found.ys) == 9 and np.isnan(found.ys).sum() == 3
    assert found.errors == {1: "ValueError: the oven is off", 2: "returned inf", 7: "returned inf"}
    assert found.y == np.nanmin(found.ys) and found.cost.evaluations == 9


def test_when_all_fail_there_is_no_answer():
    found = minimise(lambda p: math.nan, [(0.0, 1.0)], 6)
    assert math.isnan(found.y) and np.isnan(found.x).all() and len(found.xs) == 6
    assert len({float(p) for p in found.xs[:, 0]}) == 6  # it went on looking elsewhere


def test_ctrl_c_keeps_what_was_found():
    calls = []

    def function(p):
        calls.append(p)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return float(p[0])

    found = minimise(function, [(0.0, 1.0)], 40)
    assert found.stopped_because == "cancelled" and len(found.ys) == 3 and found.y == found.ys.min()


def test_a_budget_of_time_stops_it_too():
    found = minimise(lambda p: float(p[0]), [(0.0, 1.0)], Budget(evaluations=3, seconds=1e-9), QUICK["infinite"])
    assert found.stopped_because == "seconds" and len(found.ys) == 0 and math.isnan(found.y)


def test_ask_and_tell_go_in_any_order():
    optimiser = BayesianOptimiser([(0, 1), (0, 1)], QUICK["infinite"], start=4)
    first = optimiser.ask(3)
    assert first.shape == (3, 2) and math.isnan(optimiser.best[1])
    optimiser.tell([0.3, 0.5], 1.5)  # never asked for
    optimiser.tell(first, [2.0, np.nan, 3.0])
    more = optimiser.ask(2)
    assert more.shape == (2, 2) and optimiser.best[1] == 1.5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Network(activation="tanh"), "relu"),
        (lambda: Network(width=0), "at least 1"),
        (lambda: InfiniteWidth(weights=-1.0), "above 0"),
        (lambda: BayesianOptimiser([(1, 0)]), "(low, high)"),
        (lambda: BayesianOptimiser([(0, 1)], start=0), "start=10"),
        (lambda: BayesianOptimiser([(0, 1)]).ask(0), "ask(q=1)"),
        (lambda: BayesianOptimiser([(0, 1)]).tell([[0.1, 0.2]], [1.0]), "tell(x, f(x))"),
        (lambda: minimise(lambda p: 0.0, [(0, 1)], Budget(tokens=5)), "Budget(evaluations=40)"),
        (lambda: suggest(GPSurrogate(), torch.zeros(2, 1), torch.full((2,), math.nan)), "Sobol"),
    ],
)
def test_misuse_is_told(call, says):
    with pytest.raises(UsageError) as told:
        call()
    assert says in str(told.value) and "\n" not in str(told.value)


# The experiment's own parts


def test_the_problems_have_the_minima_that_regret_is_measured_from():
    minima = {
        "Branin": [(math.pi + 5) / 15, 2.275 / 15],
        "Hartmann6": (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573),
    }
    minima |= {"Gramacy-Lee": [(2 - math.sqrt(0.5)) / 8, 0.25], "Ackley-50": [1 / 3] * 50}
    for p in experiment.PROBLEMS:
        assert p.value(torch.tensor(minima[p.name], dtype=torch.float64)).item() == pytest.approx(p.lowest, abs=1e-4)
        around = torch.rand(2_000, p.dimensions, generator=torch.Generator().manual_seed(0)).double()
        assert p.value(around).min() > p.lowest


def test_a_clause_is_the_median_over_chance():
    check = experiment.beats("Branin", "GP", np.array([1.0, 4.0, 2.0, 3.0, 9.0]), chance=2.0)
    assert check.value == 1.5 and not check.passed and check.interval[0] < 1.5 < check.interval[1]
    assert experiment.random_search(experiment.PROBLEMS[0], 40, 0) > experiment.random_search(
        experiment.PROBLEMS[0], 400, 0
    )


def test_the_gp_of_the_experiment_beats_chance_on_branin_with_a_third_of_the_evaluations():
    problem = experiment.PROBLEMS[0]
    regret, (x, _) = experiment.compete(problem, GPSurrogate(restarts=2, updates=30), 20, seeds=3, seed=1)
    assert np.median(regret) < experiment.random_search(problem, 60, 0) and x.shape == (3, 20, 2)
