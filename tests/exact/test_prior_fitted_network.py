"""Bars are a density, the network keeps its promises whatever its weights, and training nears the exact posterior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from anystep import UsageError
from anystep.bayes import PriorFittedNetwork
from anystep.bayes.amortised.bars import Bars
from anystep.bayes.amortised.pfn_heads import Gaussian, Label
from anystep.bayes.amortised.pfn_net import PFNNet, PFNShape
from anystep.bayes.amortised.pfn_recipe import PFN, PFNRecipe, train, trained, untrained
from anystep.bayes.amortised.priors import GPPrior, TabularPrior
from anystep.experiments._few_shot import tables
from anystep.experiments._gaussian_processes import exact, integrated
from anystep.experiments.prior_fitted_network import HYPER, Recipes, Sizes, run

BORDERS = torch.tensor([-2.0, -1.7, -0.4, -0.35, 1.0, 1.1, 4.0])  # uneven and skewed
LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.0, 0.5])
SMALL = PFNShape(width=16, hidden=32, blocks=2, heads=2)
TINY = PFNRecipe(
    prior=GPPrior(noise=(0.1, 0.0)), shape=SMALL, context=8, points=16, bars=30, updates=300, batch=16, rate=4e-3
)


def density(y: float) -> float:
    return float(Bars(BORDERS).log_prob(LOGITS.double(), torch.tensor(y, dtype=torch.float64)).exp())


def integral(of, low: float = -np.inf, high: float = np.inf) -> float:  # noqa: ANN001
    """By quadrature, between the breaks, which it is told."""
    ends = [low, *(b for b in BORDERS[1:-1].double().tolist() if low < b < high), high]
    return sum(integrate.quad(of, a, b, epsabs=1e-11)[0] for a, b in zip(ends, ends[1:], strict=False))


def test_bars_integrate_to_one_and_their_moments_are_the_integrals() -> None:
    bars = Bars(BORDERS)
    assert abs(integral(density) - 1) < 1e-6
    mean = integral(lambda y: y * density(y))
    assert abs(float(bars.mean(LOGITS)) - mean) < 1e-5
    assert abs(float(bars.variance(LOGITS)) - integral(lambda y: (y - mean) ** 2 * density(y))) < 1e-4


def test_bars_quantiles_invert_their_distribution() -> None:
    bars = Bars(BORDERS)
    for y in (-2.9, -1.75, -1.0, -0.38, 0.5, 1.05, 3.0, 9.0):
        found = bars.cdf(LOGITS, torch.tensor(y, dtype=torch.float64))
        assert abs(float(found) - integral(density, high=y)) < 1e-6
        assert abs(float(bars.quantile(LOGITS, found)) - y) < 1e-4
    # Half of an outer bar's mass lies beyond its border.
    share = LOGITS.softmax(-1)
    assert abs(float(bars.cdf(LOGITS, BORDERS[0])) - float(share[0]) / 2) < 1e-6
    assert abs(1 - float(bars.cdf(LOGITS, BORDERS[-1])) - float(share[-1]) / 2) < 1e-6


def test_bars_samples_have_their_distribution() -> None:
    bars = Bars(BORDERS)
    drawn = bars.sample(LOGITS, 20_000, torch.Generator().manual_seed(0))
    found = stats.kstest(drawn.numpy(), lambda y: bars.cdf(LOGITS.expand(len(y), -1), torch.as_tensor(y)).numpy())
    assert found.pvalue > 1e-6  # the rate of false alarms, over seeds


def test_bars_of_draws_have_equal_mass() -> None:
    draws = torch.distributions.Gamma(2.0, 1.0).sample((100_000,))  # skewed
    bars = Bars.of(draws, 20)
    cdf = stats.gamma(2).cdf(bars.borders.numpy())
    np.testing.assert_allclose(cdf, [0.025, *(np.arange(1, 20) / 20), 0.975], atol=5 * 0.5 / 100_000**0.5)
    mean = float(bars.mean(torch.zeros(20)))
    assert abs(mean - 2) < 0.05  # of the prior itself, where all bars weigh the same


@pytest.mark.parametrize("borders", [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0]), torch.zeros(2, 3)])
def test_bars_refuse_borders_that_do_not_rise(borders: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"Bars\(torch.linspace"):
        Bars(borders)


def test_a_gaussian_head_is_scipys_normal() -> None:
    head, logits = Gaussian(), torch.tensor([0.7, -0.4])
    normal = stats.norm(0.7, np.exp(-0.4))
    assert abs(float(head.log_prob(logits, torch.tensor(-1.3))) - normal.logpdf(-1.3)) < 1e-5
    assert abs(float(head.quantile(logits, torch.tensor(0.1))) - normal.ppf(0.1)) < 1e-5
    assert abs(float(head.cdf(logits, torch.tensor(0.2))) - normal.cdf(0.2)) < 1e-5


def disturbed(recipe: PFNRecipe, seed: int = 0) -> PFN:
    """Untrained, with all weights random, none zero."""
    model = untrained(recipe)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    return model.eval().requires_grad_(False)


def test_the_order_of_the_context_and_other_queries_change_nothing() -> None:
    model = disturbed(TINY)
    x, y = TINY.prior.draw(3, 12, torch.Generator().manual_seed(1))
    said = model(x[:, :7], y[:, :7], x[:, 7:])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(x[:, order], y[:, order], x[:, 7:]), said, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(x[:, :7], y[:, :7], x[:, 9:10]), said[:, 2:3], rtol=0, atol=1e-5)
    assert (model(x[:, :7], y[:, :7] + 0.1, x[:, 7:]) - said).abs().max() > 1e-3  # the context is read
    assert (said[:, 0] - said[:, 1]).abs().max() > 1e-3  # and so is the query


def test_counted_contexts_are_shorter_contexts_and_none_is_one() -> None:
    model = disturbed(TINY)
    x, y = TINY.prior.draw(4, 9, torch.Generator().manual_seed(3))
    count = torch.tensor([0, 1, 5, 7])
    together = model(x[:, :7], y[:, :7], x[:, 7:], count)
    for i, n in enumerate(count.tolist()):
        alone = model(x[i : i + 1, :n], y[i : i + 1, :n], x[i : i + 1, 7:])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


def test_before_training_a_network_says_what_the_prior_says() -> None:
    model, (x, y) = untrained(TINY), TINY.prior.draw(2, 6, torch.Generator().manual_seed(0))
    assert not model(x[:, :3], y[:, :3], x[:, 3:]).any()  # equal masses
    assert PFNNet(3, 5, SMALL)(torch.zeros(2, 0, 3), torch.zeros(2, 0), torch.randn(2, 4, 3)).shape == (2, 4, 5)


def test_gp_draws_have_the_kernel_s_covariance() -> None:
    prior = GPPrior(features=2, lengthscale=(0.5, 0.0), outputscale=(1.7, 0.0), noise=(0.3, 0.0))
    points = torch.tensor([[0.1, 0.9], [0.4, 0.2], [0.5, 0.3]])
    drawn = prior.draw_at(points.expand(40_000, -1, -1), torch.Generator().manual_seed(0)).double().numpy()
    gaps = ((points[:, None] - points[None]).numpy() ** 2).sum(-1)
    wanted = 1.7 * np.exp(-gaps / (2 * 0.25)) + 0.3 * np.eye(3)
    assert np.abs(np.cov(drawn.T) - wanted).max() < 5 * 2.0 * 2**0.5 / 200


def test_gp_hyper_parameters_are_log_normal() -> None:
    """At one point y^2 over its scale is chi-squared: log y^2 says the scale's median by its mean, and its spread."""
    prior = GPPrior(outputscale=(3.0, 0.7), noise=(1e-6, 0.0))
    y = prior.draw(40_000, 1, torch.Generator().manual_seed(0))[1].double().numpy()
    logs = np.log(y**2)
    chi_mean, chi_variance = -1.2703628, np.pi**2 / 2
    assert abs(logs.mean() - np.log(3.0) - chi_mean) < 5 * logs.std() / 200
    assert abs(logs.var() - chi_variance - 0.49) < 5 * 0.07


def test_tabular_draws_are_as_told() -> None:
    x, y = TabularPrior(features=20).draw(2_000, 40, torch.Generator().manual_seed(0))
    used = (x != 0).any(1)
    assert used.sum(-1).min() == 2 and used.sum(-1).max() == 20
    assert not (used[:, 1:] & ~used[:, :-1]).any()  # unused features come last
    torch.testing.assert_close(x.square().mean((1, 2)), torch.ones(2_000))
    assert set(y.unique().tolist()) == {0.0, 1.0}
    shares = y.mean(1)
    assert abs(float(shares.mean()) - 0.5) < 5 * float(shares.std()) / 2_000**0.5  # labels are not told apart


@pytest.fixture(scope="module")
def tiny() -> PFN:
    return train(TINY)[0]


def gap(model: PFN, n: int, sets: int = 300) -> float:
    x, y = TINY.prior.draw(sets, n + 6, torch.Generator().manual_seed(7))
    with torch.no_grad():
        said = model.head.log_prob(model(x[:, :n], y[:, :n], x[:, n:]), y[:, n:])
    truth = exact(TINY.prior, x[:, :n], y[:, :n], x[:, n:], y[:, n:])
    return float((truth - said).mean())


def test_the_exact_posterior_is_scipys() -> None:
    """The oracle of the gaps, from joint densities alone: p(query | context) is a ratio of two."""
    x, y = TINY.prior.draw(1, 5, torch.Generator().manual_seed(5))
    gaps = ((x[0][:, None] - x[0][None]).double().numpy() ** 2).sum(-1)
    covariance = np.exp(-gaps / (2 * 0.04)) + 0.1 * np.eye(5)
    whole, part = (
        stats.multivariate_normal(np.zeros(k), covariance[:k, :k]).logpdf(y[0, :k].double().numpy()) for k in (5, 4)
    )
    assert abs(float(exact(TINY.prior, x[:, :4], y[:, :4], x[:, 4:], y[:, 4:])) - (whole - part)) < 1e-6


def test_training_nears_the_exact_posterior(tiny: PFN) -> None:
    for n in (2, 8):
        assert -0.01 < gap(tiny, n) < 0.6 * gap(untrained(TINY), n)


def test_a_check_alarms_as_often_as_it_says_and_fires_outside_the_prior(tiny: PFN) -> None:
    model = PriorFittedNetwork(TINY, tiny)
    x, y = TINY.prior.draw(400, 8, torch.Generator().manual_seed(11))
    p = model.fit(x, y).check(draws=399).p
    # Ranks against the same 399 draws: their spread is that of 400 and of 399 draws together.
    for level in (0.05, 0.2):
        assert abs(float((p <= level).mean()) - level) < 5 * (2 * level * (1 - level) / 400) ** 0.5
    assert (model.fit(x, 4 * y).check(draws=399).p <= 0.05).mean() > 0.9
    single = model.fit(x[0], 4 * y[0]).check(draws=399)
    assert single.p.shape == () and single.typical[0] < single.typical[2]


def test_the_marginal_is_the_chain_of_predictions(tiny: PFN) -> None:
    model = PriorFittedNetwork(TINY, tiny)
    x, y = TINY.prior.draw(2, 5, torch.Generator().manual_seed(4))
    chain = sum(model.fit(x[:, :i], y[:, :i]).log_prob(x[:, i : i + 1], y[:, i : i + 1])[:, 0] for i in range(5))
    np.testing.assert_allclose(model._marginal(x, y), chain, atol=1e-4)


def test_many_sets_are_as_one_by_one_and_quantiles_rise(tiny: PFN) -> None:
    model = PriorFittedNetwork(TINY, tiny)
    x, y = TINY.prior.draw(3, 9, torch.Generator().manual_seed(6))
    many, alone = model.fit(x[:, :6], y[:, :6]), PriorFittedNetwork(TINY, tiny).fit(x[1, :6], y[1, :6])
    np.testing.assert_allclose(many.predict(x[:, 6:])[1], alone.predict(x[1, 6:]), atol=1e-5)
    np.testing.assert_allclose(many.log_prob(x[:, 6:], y[:, 6:])[1], alone.log_prob(x[1, 6:], y[1, 6:]), atol=1e-5)
    quantiles = many.predict_quantiles(x[:, 6:])
    assert quantiles.shape == (3, 3, 3) and (np.diff(quantiles) > 0).all()
    drawn = alone.sample(x[1, 6:], n=4_000, seed=3)
    assert drawn.shape == (3, 4_000)
    below = (drawn < quantiles[1][:, :1]).mean(1)
    assert np.abs(below - 0.05).max() < 5 * (0.05 * 0.95 / 4_000) ** 0.5


def test_labels_may_change_names() -> None:
    recipe = PFNRecipe(prior=TabularPrior(features=3), shape=SMALL, context=10, points=15)
    model = PriorFittedNetwork(recipe, disturbed(recipe))
    x, y = recipe.prior.draw(2, 12, torch.Generator().manual_seed(8))
    said = model.fit(x[:, :8], y[:, :8]).predict_proba(x[:, 8:])
    other = model.fit(x[:, :8], 1 - y[:, :8]).predict_proba(x[:, 8:])
    np.testing.assert_allclose(said, other[..., ::-1], atol=1e-6)
    np.testing.assert_allclose(said.sum(-1), 1)
    assert set(np.unique(model.predict(x[:, 8:]))) <= {0.0, 1.0}
    head = Label()
    both = sum(head.log_prob(torch.tensor([0.4]), torch.tensor(v)).exp() for v in (0.0, 1.0))
    assert abs(float(both) - 1) < 1e-6
    with pytest.raises(UsageError, match="predict_proba"):
        model.sample(x[:, 8:])


def test_what_is_trained_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe = replace(TINY, updates=2)
    said: list[str] = []
    first = trained(recipe, said.append)
    assert said
    card = next((tmp_path / "models").glob("pfn-*.json"))
    told = len(said)
    again = trained(PFNRecipe(**vars(recipe)), said.append)
    assert len(said) == told and card.exists()
    x, y = recipe.prior.draw(1, 5, torch.Generator().manual_seed(0))
    assert torch.equal(first(x, y, x), again(x, y, x))
    assert recipe.told() != replace(recipe, prior=TabularPrior(2)).told()


def test_the_experiment_runs_in_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts fit together, and what needs no training holds; what it claims of trained networks is recorded."""
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    small = {"shape": SMALL, "context": 5, "points": 10, "updates": 32, "batch": 8, "bars": 20}
    recipes = Recipes(
        PFNRecipe(**small),
        PFNRecipe(prior=HYPER, **small),
        PFNRecipe(prior=TabularPrior(), **small | {"context": 40, "points": 50}),
    )
    cancer, pairs = tables()
    said: list[str] = []
    result = run(3, said.append, recipes, Sizes(8, 2, 2, 12, 24, 3, 1), (cancer, pairs[:2]))
    assert len(result.checks) == 17 and result.row == 170
    named = {check.clause: check for check in result.checks}
    for clause in ("change of bars' masses", "distance from one", "share of the prior's own"):
        assert next(check for name, check in named.items() if name.startswith(clause)).passed
    assert "logistic C=10" in result.notes


def test_integrating_hyper_parameters_out_is_the_mean_over_their_prior() -> None:
    """Against plain Monte Carlo over the prior, weighted by scipy's likelihood of the context."""
    x, y = HYPER.draw(1, 4, torch.Generator().manual_seed(2))
    draws = np.random.default_rng(0).standard_normal((20_000, 3))
    length, scale, noise = (
        m * np.exp(s * draws[:, i]) for i, (m, s) in enumerate([(0.25, 0.6), (1.0, 0.5), (0.04, 0.8)])
    )
    gaps = ((x[0][:, None] - x[0][None]).double().numpy() ** 2).sum(-1)
    kernel = scale[:, None, None] * np.exp(-gaps / (2 * length[:, None, None] ** 2)) + noise[:, None, None] * np.eye(4)
    values = y[0].double().numpy()

    def densities(k: int) -> np.ndarray:
        part = kernel[:, :k, :k]
        quadratic = (
            np.linalg.solve(part, np.broadcast_to(values[:k, None], (len(part), k, 1)))[..., 0] * values[:k]
        ).sum(-1)
        return np.exp(-0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * part)[1]))

    whole, context = densities(4), densities(3)
    ratio = whole.mean() / context.mean()
    spread = (whole / whole.mean() - context / context.mean()).std() / 20_000**0.5
    found = float(integrated(HYPER, x[:, :3], y[:, :3], x[:, 3:], y[:, 3:]))
    assert abs(found - np.log(ratio)) < 5 * spread


def test_calls_that_were_not_meant_are_refused(tiny: PFN) -> None:
    model = PriorFittedNetwork(TINY, tiny)
    with pytest.raises(UsageError, match="before fit"):
        model.predict(np.zeros((2, 1)))
    for X, y, why in (
        (np.zeros((3, 2)), np.zeros(3), "X is finite"),
        (np.zeros((3, 1)), np.zeros(2), "one number of y"),
        (np.zeros((9, 1)), np.zeros(9), "at most 8"),
        (np.full((3, 1), np.nan), np.zeros(3), "X is finite"),
        (np.zeros((3, 1)), np.full(3, np.inf), "finite numbers"),
    ):
        with pytest.raises(UsageError, match=why):
            model.fit(X, y)
    model.fit(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(UsageError, match="one set"):
        model.predict(np.zeros((2, 3, 1)))
    with pytest.raises(UsageError, match="inside"):
        model.predict_quantiles(np.zeros((3, 1)), (0.0, 0.5))
    with pytest.raises(UsageError, match="predict_quantiles"):
        model.predict_proba(np.zeros((3, 1)))
    with pytest.raises(UsageError, match="check"):
        model.fit(np.zeros((0, 1)), np.zeros(0)).check()
    for make in (
        lambda: GPPrior(noise=(0.0, 0.0)),
        lambda: GPPrior(features=0),
        lambda: TabularPrior(features=1),
        lambda: PFNShape(width=10, heads=4),
    ):
        with pytest.raises(UsageError):
            make()
    with pytest.raises(UsageError, match="left to ask"):
        PFNRecipe(context=50)
    with pytest.raises(UsageError, match="bars, gaussian"):
        PFNRecipe(head="spline")  # type: ignore[arg-type]
