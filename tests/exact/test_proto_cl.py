"""Sequential posteriors, prototypes and mixtures against SciPy's and numerical oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from anystep.bayes.sequential.batched import MLP
from anystep.bayes.sequential.linear_gaussian import LinearBelief
from anystep.bayes.sequential.mixture import fit_mixture
from anystep.bayes.sequential.proto_cl import ProtoCL, Prototypes
from anystep.bayes.sequential.sequential_hmc import Chain, sequential_hmc
from anystep.errors import UsageError
from anystep.experiments._variational_continual import Layer, Vcl
from anystep.experiments.proto_cl import blobs, linear


def test_sequential_is_batch_and_the_wrong_model_predicts_badly() -> None:
    apart, wrong = linear(3)
    assert apart < 1e-8
    assert wrong.low > 4


def test_prediction_is_the_conditional_of_a_joint_gaussian() -> None:
    """y at new places given y at old ones, from their joint covariance alone: weights never appear."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    prior, x, new = root @ root.T + 0.1 * np.eye(3), rng.normal(size=(6, 3)), rng.normal(size=(4, 3))
    y = rng.normal(size=6)
    old = x @ prior @ x.T + 0.49 * np.eye(6)
    gain = new @ prior @ x.T @ np.linalg.inv(old)
    mean, sd = LinearBelief.prior(prior, 0.7).update(x[:2], y[:2]).update(x[2:], y[2:]).predict(new)
    np.testing.assert_allclose(mean, gain @ y, atol=1e-10)
    spread = new @ prior @ new.T - gain @ x @ prior @ new.T
    np.testing.assert_allclose(sd**2, np.diag(spread) + 0.49, atol=1e-10)


def test_prototypes_predict_as_a_joint_gaussian_does() -> None:
    """The density of a new embedding with a class's old ones over that of the old ones alone, by SciPy, coordinate by
    coordinate; the numbers of the classes differ and one was never seen."""
    z = torch.tensor([[0.5, 2.0], [1.5, 1.0], [-1.0, 0.3], [2.5, 3.5]]).double()
    y, new, spread = torch.tensor([0, 0, 2, 0]), torch.tensor([[1.0, -0.4]]).double(), 0.6
    found = Prototypes.of(z, y, 3, spread).log_joint(new)[0]
    expected = []
    for k in (0, 2):
        own = z[y == k].numpy()
        n = len(own)
        told = np.log(1 + n)
        for j in range(2):
            joint = stats.multivariate_normal(np.zeros(n + 1), np.ones((n + 1, n + 1)) + spread * np.eye(n + 1))
            alone = stats.multivariate_normal(np.zeros(n), np.ones((n, n)) + spread * np.eye(n))
            told += joint.logpdf([*own[:, j], new[0, j].item()]) - alone.logpdf(own[:, j])
        expected.append(told)
    assert found[1] == -torch.inf
    assert (found[0] - found[2]).item() == pytest.approx(expected[0] - expected[1], abs=1e-10)


def test_leaving_an_example_out_is_never_having_counted_it() -> None:
    draw = torch.Generator().manual_seed(0)
    z, y = torch.randn(9, 3, generator=draw).double(), torch.tensor([0, 1, 1, 2, 2, 2, 0, 1, 2])
    found = Prototypes.of(z, y, 3).log_joint(z, but=y)
    for i in range(9):
        rest = torch.arange(9) != i
        torch.testing.assert_close(found[i], Prototypes.of(z[rest], y[rest], 3).log_joint(z[i : i + 1])[0])


def test_a_mixtures_density_and_slope_are_scipys_and_held_out_draws_choose_its_size() -> None:
    rng = np.random.default_rng(0)
    means, roots = np.array([[0.0, 0.0], [4.0, 1.0]]), np.array([[[1.0, 0.0], [0.8, 0.3]], [[0.3, 0.0], [-0.5, 1.0]]])
    which = rng.random(1200) < 0.3
    at = np.where(which[:, None], means[1], means[0])
    draws = at + np.einsum("nij,nj->ni", np.where(which[:, None, None], roots[1], roots[0]), rng.normal(size=(1200, 2)))
    fit = fit_mixture(draws[:800], draws[800:], (1, 2))
    assert len(fit.weights) == 2 and fit.told[2] > fit.told[1]
    x = torch.tensor([[0.3, 0.5], [3.0, 2.0]]).double().requires_grad_()
    parts = zip(fit.weights.numpy(), fit.means.numpy(), fit.roots.numpy(), strict=True)
    density = sum(w * stats.multivariate_normal(m, r @ r.T).pdf(x.detach().numpy()) for w, m, r in parts)
    np.testing.assert_allclose(fit.logp(x).detach().numpy(), np.log(density), atol=1e-10)
    assert torch.autograd.gradcheck(fit.logp, (x,))
    again = fit.sample(20_000)
    np.testing.assert_allclose(again.mean(0), fit.weights @ fit.means, atol=0.08)
    inside = (fit.weights[:, None, None] * (fit.roots @ fit.roots.mT)).sum(0)
    between = torch.cov(fit.means.T, aweights=fit.weights, correction=0)
    np.testing.assert_allclose(torch.cov(again.T), inside + between, atol=0.15)


def test_a_linear_networks_chain_of_posteriors_is_the_posterior_of_all_tasks() -> None:
    """A logistic regression of two tasks: after the second its mean is that of importance weights on a grid. The bound
    is four times the spread over ten seeds."""
    net = MLP((1, 2))
    draw = torch.Generator().manual_seed(0)
    x = [torch.randn(12, 1, generator=draw), 1 + torch.randn(12, 1, generator=draw)]
    y = [(v[:, 0] + 0.7 * torch.randn(12, generator=draw) > 0.4).long() for v in x]
    last = sequential_hmc(net, list(zip(x, y, strict=True)), 1.0, Chain(8, 240, 60, 5, 0.4), (1, 2), seed=0)[-1]
    flat = torch.from_numpy(last.draws.reshape(-1, 4))
    slope = float((flat[:, 1] - flat[:, 0]).mean())  # what the logits differ by, per unit of x
    sides = torch.linspace(-6, 6, 241).double()
    a, b = torch.meshgrid(sides, sides, indexing="ij")  # difference of weights, and of biases, each N(0, 2)
    told = -(a**2 + b**2) / 4
    for v, label in zip(torch.cat(x)[:, 0], torch.cat(y), strict=True):
        told = told + torch.nn.functional.logsigmoid((2 * label - 1) * (a * v + b))
    mass = (told - told.max()).exp()
    assert slope == pytest.approx(float((a * mass).sum() / mass.sum()), abs=0.25)
    assert last.rhat < 1.1 and abs(last.fitted - last.held) < 0.5


def small(memory: int) -> ProtoCL:
    model = ProtoCL(2, 4, memory=memory, hidden=16, embedding=4, epochs=15, rate=1e-2)
    for task in range(2):
        (x, y), _ = blobs(task, 0)
        model.learn(x + torch.tensor([2.0 * task, 0.0]), y + 2 * task)
    return model


def test_it_keeps_an_old_task_that_variational_inference_loses() -> None:
    (x, y), _ = blobs(0, 0)
    ours = small(40)
    assert (ours.predict(x) == y.numpy()).mean() > 0.9
    assert ours.predict_proba(x).sum(1) == pytest.approx(1)
    assert (ours.predict(x) == small(40).predict(x)).all()
    theirs = Vcl(2, 4, 16, 15, 0, 0)
    for task in range(2):
        (u, v), _ = blobs(task, 0)
        theirs.learn(u + torch.tensor([2.0 * task, 0.0]), v + 2 * task)
    assert (theirs.predict_proba(x).argmax(1) == y.numpy()).mean() < 0.6


def test_statistics_are_of_the_memory_by_the_encoder_as_it_is() -> None:
    model = small(10)
    assert len(model.kept_x) == 20
    z = model.encoder(model.kept_x).detach()
    torch.testing.assert_close(model.prototypes.total, torch.stack([z[model.kept_y == k].sum(0) for k in range(4)]))
    assert len(small(0).kept_x) == 0


def test_the_baselines_divergence_is_torchs() -> None:
    layer = Layer(3, 2)
    layer.prior_mean, layer.prior_logs = torch.randn(4, 2), 0.3 * torch.randn(4, 2)
    prior = torch.distributions.Normal(layer.prior_mean, layer.prior_logs.exp())
    found = torch.distributions.kl_divergence(torch.distributions.Normal(layer.mean, layer.logs.exp()), prior).sum()
    torch.testing.assert_close(layer.divergence(), found)


def test_calls_that_are_wrong_say_what_was_meant() -> None:
    with pytest.raises(UsageError, match="ProtoCL"):
        ProtoCL(0, 10)
    with pytest.raises(UsageError, match="before anything"):
        ProtoCL(2, 3).predict([[0.0, 1.0]])
    with pytest.raises(UsageError, match="one label"):
        ProtoCL(2, 3).learn([[0.0, 1.0]], [3])
    with pytest.raises(UsageError, match="flatten"):
        ProtoCL(2, 3).learn([[0.0]], [1])
    with pytest.raises(UsageError, match="memory=-1"):
        ProtoCL(2, 3, memory=-1)
    with pytest.raises(UsageError, match="positive definite"):
        LinearBelief.prior([[1.0, 2.0], [2.0, 1.0]], 0.5)
    with pytest.raises(UsageError, match="update"):
        LinearBelief.prior(np.eye(2), 0.5).update([[1.0]], [1.0])
    with pytest.raises(UsageError, match="rows of draws"):
        fit_mixture(np.zeros((2, 5)), np.zeros((2, 5)))
    with pytest.raises(UsageError, match="tasks"):
        sequential_hmc(MLP((1, 2)), [], 1.0)
