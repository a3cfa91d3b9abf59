"""Distribution transformers: what holds of any network by its form, and that a miniature one learns Bayes' rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from anystep.bayes import (
    DistributionRecipe,
    DistributionTransformer,
    GaussianMixture,
    LinearGaussian,
    MixturePriors,
    UnknownNormal,
)
from anystep.bayes.amortised.distribution_transformer_problems import OnePrior
from anystep.errors import ModelError, UsageError
from anystep.experiments import distribution_transformer as experiment
from anystep.experiments._distribution_transformers import PLANE, RECIPES
from anystep.experiments._normal_posteriors import posteriors, tasks

SMALL = {"width": 32, "layers": 1, "batch": 128}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def line() -> DistributionTransformer:
    problem = LinearGaussian(sensors=((((0.8,),), ((0.2,),)),), most=3, given=MixturePriors(sizes=(0.5, 1.2)))
    return DistributionTransformer(DistributionRecipe(problem, fresh=1.0, updates=200, rate=4e-3, **SMALL)).fit(
        lambda said: None
    )


@pytest.fixture(scope="module")
def stirred() -> DistributionTransformer:
    """A network in the plane whose every weight is at work, though it learned nothing."""
    model = DistributionTransformer(DistributionRecipe(PLANE, updates=1, **SMALL)).fit(lambda said: None)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.net.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    return model


def drawn(problem: LinearGaussian, n: int, seed: int = 5) -> tuple[GaussianMixture, tuple[torch.Tensor, ...]]:
    draw = torch.Generator().manual_seed(seed)
    prior = problem.priors(n, 3, draw)
    return prior.to(torch.float64), problem.observe(prior.sample(1, draw)[0], draw)


def test_an_untrained_network_says_the_prior() -> None:
    model = DistributionTransformer(DistributionRecipe(PLANE, updates=0, **SMALL)).fit(lambda said: None)
    prior, data = drawn(PLANE, 50)
    said = model.posterior(prior, data)
    for ours, theirs in ((said.logs, prior.logs), (said.means, prior.means), (said.scales, prior.scales)):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_components_and_data_have_no_order(stirred: DistributionTransformer) -> None:
    prior, (full, half) = drawn(PLANE, 40)
    said = stirred.posterior(prior, (full, half))
    turned = stirred.posterior(prior.permuted([2, 0, 1]), (full.flip(-2), half.flip(-2)))
    assert torch.allclose(said.permuted([2, 0, 1]).means, turned.means, atol=1e-4)
    assert torch.allclose(said.permuted([2, 0, 1]).logs, turned.logs, atol=1e-4)
    assert not torch.allclose(said.means, prior.means, atol=1e-2)


def test_rows_of_nan_are_no_data(stirred: DistributionTransformer) -> None:
    prior, (full, half) = drawn(PLANE, 40)
    longer = torch.cat([full, torch.full((40, 3, 2), torch.nan)], 1)
    said, same = stirred.posterior(prior, (full, half)), stirred.posterior(prior, (longer, half))
    assert torch.allclose(said.means, same.means, atol=1e-4)
    none = tuple(torch.full_like(d, torch.nan) for d in (full, half))
    assert bool(stirred.posterior(prior, none).means.isfinite().all())


def test_a_batch_is_each_of_its_problems(stirred: DistributionTransformer) -> None:
    prior, (full, half) = drawn(PLANE, 12)
    flat = stirred.posterior(prior, (full, half))
    shaped = GaussianMixture(*(t.reshape(3, 4, *t.shape[1:]) for t in (prior.logs, prior.means, prior.scales)))
    square = stirred.posterior(shaped, (full.reshape(3, 4, 2, 2), half.reshape(3, 4, 2, 1)))
    assert square.batch == (3, 4) and torch.allclose(square.means.reshape(12, 3, 2), flat.means, atol=1e-4)
    one = GaussianMixture(prior.logs[0], prior.means[0], prior.scales[0])
    alike = stirred.posterior(one, (full, half))
    assert alike.batch == (12,) and torch.allclose(alike.means[0], flat.means[0], atol=1e-4)


def test_the_prior_loss_locks_tokens_to_mixtures(line: DistributionTransformer) -> None:
    prior, _ = drawn(line.recipe.problem, 200)
    assert float(prior.divergence(line.mixture(line.tokens(prior))).mean()) < 0.01


def test_a_miniature_learns_bayes_rule_for_unseen_priors(line: DistributionTransformer) -> None:
    """After 200 small updates a posterior is at most half as far from the exact one as its prior is."""
    case = experiment.cases(line.recipe.problem, 3, 300, 0)
    ours = experiment.apart(case.exact, line.posterior(case.prior, case.data)).mean()
    print("KLS", ours, experiment.apart(case.exact, case.prior).mean())
    assert ours < 0.5 * experiment.apart(case.exact, case.prior).mean()


def test_a_model_is_trained_once(line: DistributionTransformer) -> None:
    said: list[str] = []
    again = DistributionTransformer(line.recipe).fit(said.append)
    assert not said and again.net is line.net


def test_what_was_not_trained_on_is_noticed(line: DistributionTransformer) -> None:
    usual, _ = drawn(line.recipe.problem, 500)
    far = GaussianMixture(usual.logs, usual.means + 40.0, usual.scales)
    assert float(line.outside(usual).double().mean()) < 0.1 and bool(line.outside(far).all())


def test_the_exact_posterior_of_several_sensors_on_a_grid() -> None:
    prior, data = drawn(replace(PLANE, moves=None), 6)
    exact = replace(PLANE, moves=None).exact(prior, data)
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)[:, None]
    logs = prior.log_density(points).numpy()
    for (matrix, noise), values in zip(PLANE.sensors, data, strict=True):
        law = stats.multivariate_normal(np.zeros(len(noise)), noise)
        for y in values.double().unbind(1):
            residual = y.numpy() - points.numpy() @ np.array(matrix).T
            logs = logs + np.nan_to_num(np.atleast_2d(law.logpdf(np.nan_to_num(residual)))) * ~np.isnan(y[:, 0].numpy())
    mass = np.exp(logs - logs.max(0))
    mean = (mass[..., None] * points.numpy()).sum(0) / mass.sum(0)[:, None]
    assert np.allclose(exact.mean.numpy(), mean, atol=1e-3)


def test_the_likelihood_of_an_unknown_normal_is_scipy_s() -> None:
    problem, draw = UnknownNormal(mean=True), torch.Generator().manual_seed(3)
    x = torch.randn(5, 2, generator=draw)
    data = problem.observe(x, draw)
    y = data[0][..., 0].numpy()
    truth = np.nansum(stats.norm(x[:, :1], np.exp(0.5 * x[:, 1:])).logpdf(y), 1)
    assert np.allclose(problem.log_likelihood(x, data).numpy(), truth, atol=1e-4)
    assert np.isnan(y).any() and not np.isnan(y[:, 0]).any()


def test_quadrature_agrees_with_draws_of_the_prior_weighed_by_the_likelihood() -> None:
    """40,000 draws for each of 3 problems, |z| < 5 for their six means: false alarms below 1 in 200,000."""
    task = tasks(UnknownNormal(mean=True), 3, 0)
    grid = posteriors(task)
    means = (grid.logs.exp()[..., None] * grid.points).sum(0).numpy()
    drawn = task.prior.sample(40_000, torch.Generator().manual_seed(1)).numpy()
    for i, y in enumerate(task.data[0][..., 0].numpy()):
        x = drawn[:, i]
        log = stats.norm(x[:, :1], np.exp(0.5 * x[:, 1:])).logpdf(y[~np.isnan(y)]).sum(1)
        weight = np.exp(log - log.max())
        weight /= weight.sum()
        mean = weight @ x
        error = np.sqrt((weight**2) @ (x - mean) ** 2)
        assert np.abs((mean - means[i]) / error).max() < 5 and error.max() < 0.05


def test_one_prior_is_always_that_prior() -> None:
    one = OnePrior((0.5, 0.5), ((0.4,), (-1.1,)), (((0.2,),), ((0.5,),)))
    found = one.draw(4, 2, 1, torch.Generator())
    assert found.batch == (4,) and torch.allclose(found.means[3], torch.tensor([[0.4], [-1.1]]))
    with pytest.raises(UsageError, match="2 components"):
        one.draw(4, 3, 1, torch.Generator())


def test_calls_that_cannot_be_say_which_was_meant(line: DistributionTransformer) -> None:
    prior, data = drawn(line.recipe.problem, 4)
    with pytest.raises(ModelError, match=r"\.fit\(\)"):
        DistributionTransformer().posterior(prior, data)
    with pytest.raises(UsageError, match=r"split\(3\)"):
        line.posterior(prior.truncated(2), data)
    with pytest.raises(UsageError, match="one tensor"):
        line.posterior(prior, (data[0], data[0]))
    with pytest.raises(UsageError, match="one tensor"):
        line.posterior(prior, data[0][:3])
    with pytest.raises(UsageError, match="fresh"):
        DistributionTransformer(DistributionRecipe(fresh=0.0))


def test_the_experiment_runs_small() -> None:
    """Every part end to end with networks that learned next to nothing: all clauses are there, and figures finite."""
    recipes = {name: replace(recipe, updates=2, **SMALL) for name, recipe in RECIPES.items()}
    result = experiment.run(0, lambda said: None, recipes, problems=20, updates=3, normals=6, long=40)
    assert len(result.checks) == 14 and all(np.isfinite(check.value) for check in result.checks)
    assert not result.passed
