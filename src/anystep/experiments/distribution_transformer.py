"""Row 33: distribution transformers beside exact updates, quadrature, Markov chains, and one that knows one prior.

Stated time: three minutes of processor; nine more the first time, for training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from anystep.bayes import DistributionRecipe, DistributionTransformer, GaussianMixture, LinearGaussian
from anystep.calibrate.interval import Interval, bootstrap_mean, paired_difference
from anystep.experiments._distribution_transformers import RECIPES
from anystep.experiments._figures import held, ratio, table
from anystep.experiments._normal_posteriors import Task, chains, divergences, from_mixtures, posteriors, seconds, tasks
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 33
Models = dict[str, DistributionTransformer]


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    recipes: Mapping[str, DistributionRecipe] = RECIPES,
    problems: int = 2_500,
    updates: int = 20,
    normals: int = 400,
    long: int = 2_000,
) -> Result:
    """Check every clause of the row.

    problems: unseen priors for each figure on a line and in the plane, and sequences of `updates` updates. normals:
    unseen priors of the problem without a closed form, `long`: draws of each of four Markov chains for 100 of them.
    """
    torch.set_num_threads(1)
    began = time.process_time()
    models = {name: DistributionTransformer(recipe).fit(progress) for name, recipe in recipes.items()}
    progress(f"{time.process_time() - began:.0f} s of processor for the models")
    checks: list[Check] = []
    notes: list[str] = []
    for part in (known, followed, one_prior):
        found, told = part(models, problems, updates, seed)
        checks += found
        notes.append(told)
        progress(told)
    found, told = unknown(models, normals, long, seed)
    progress(told)
    text = (
        f"{problems} priors never seen in training for each figure, {normals} of the problem without a closed form; "
        "divergences are of the network's posterior from the exact one, in nats. Times are of processor, one thread."
    )
    used = time.process_time() - began
    return Result("distribution_transformer", ROW, (*checks, *found), used, seed, "\n\n".join([text, *notes, told]))


@dataclass(frozen=True)
class Cases:
    """A batch of problems: priors, data, and the exact posteriors."""

    prior: GaussianMixture
    data: tuple[Tensor, ...]
    exact: GaussianMixture


def cases(problem: LinearGaussian, components: int, n: int, seed: int) -> Cases:
    """n problems as they are in training; other ones, for training draws from its own generator."""
    draw = torch.Generator().manual_seed(10_000 + seed)
    prior = problem.priors(n, components, draw)
    data = problem.observe(problem.evolve(prior.sample(1, draw)[0], draw), draw)
    prior = prior.to(torch.float64)
    return Cases(prior, data, problem.exact(prior, data))


def apart(exact: GaussianMixture, said: GaussianMixture) -> Floats:
    """(n,) divergences, by quadrature."""
    return exact.divergence(said, nodes=32 if exact.size == 1 else 20).numpy()


def known(models: Models, n: int, updates: int, seed: int) -> tuple[list[Check], str]:
    """Unseen priors where the posterior is known: on a line, and in a plane with tilted matrices."""
    checks, rows = [], []
    for name, clause, bound in (("line", "1-D", 0.02), ("plane", "2-D", 0.06)):
        model, recipe = models[name], models[name].recipe
        case = cases(recipe.problem, recipe.components, n, seed)
        kl = apart(case.exact, model.posterior(case.prior, case.data))
        checks += [
            held(f"mean KL, {clause}, unseen mixture priors", bootstrap_mean(kl), "<=", bound),
            held(f"95th percentile of KL, {clause}", percentile(kl), "<=", 0.15),
        ]
        before = case.prior if recipe.problem.moves is None else case.prior.moved(*recipe.problem.moves)
        plain = [apart(case.exact, other).mean() for other in (before, case.exact.merged(1))]
        ours = seconds(lambda m=model, c=case: m.posterior(c.prior, c.data)) / n  # type: ignore[misc]
        closed = seconds(lambda r=recipe, c=case: r.problem.exact(c.prior, c.data)) / n  # type: ignore[misc]
        rows.append([clause, kl.mean(), np.quantile(kl, 0.95), *plain, f"{1e6 * ours:.0f}", f"{1e6 * closed:.0f}"])
    head = ["exact", "KL", "95%", "prior's KL", "best one Gaussian's", "us a problem", "us of the closed form"]
    return checks, table(head, [[str(r[0]), *map(float, r[1:5]), *r[5:]] for r in rows])


def percentile(values: Floats, level: float = 0.95) -> Interval:
    """A percentile of items, with its bootstrap interval."""
    at = np.random.default_rng(0).integers(0, len(values), (1_000, len(values)))
    low, high = np.quantile(np.quantile(values[at], level, axis=1), [0.025, 0.975])
    return Interval(float(np.quantile(values, level)), float(low), float(high))


def followed(models: Models, n: int, updates: int, seed: int) -> tuple[list[Check], str]:
    """Sequences in which each posterior is the next prior, as tokens and as numbers, beside the exact filter."""
    checks, rows = [], []
    for name, what in (
        ("plane", "2-D, moving"),
        ("still", "1-D, still"),
        ("line", "1-D, still, up to six data an update"),
        ("locked", "the same, never fed back in training"),
        ("unlocked", "the same without the prior loss"),
    ):
        recipe = models[name].recipe
        errors, drift = sequences(models[name], n, updates, seed)
        case = cases(recipe.problem, recipe.components, n, seed)
        kl = apart(case.exact, models[name].posterior(case.prior, case.data)).mean()
        for i, variant in ((1, "parameters"), (2, "tokens")):
            figure = ratio(errors[i].mean(0), errors[0].mean(0))
            root = Interval(*(sqrt(v) for v in (figure.value, figure.low, figure.high)))
            if name in ("plane", "still"):
                clause = f"RMSE over the exact filter's, {updates} updates, {what}, {variant} fed back"
                checks.append(held(clause, root, "<=", 1.05))
            last = sqrt(errors[i, -1].mean() / errors[0, -1].mean())
            rows.append([what, variant, float(kl), root.value, last, drift[i - 1]])
    return checks, table(["problem", "fed back", "KL of one update", "RMSE ratio", "at the last", "KL there"], rows)


def sequences(model: DistributionTransformer, n: int, updates: int, seed: int) -> tuple[Floats, tuple[float, float]]:
    """(3, updates, n) squared errors of the exact mean, with parameters fed back and with tokens; and both last KLs."""
    problem, draw = model.recipe.problem, torch.Generator().manual_seed(20_000 + seed)
    prior = problem.priors(n, model.recipe.components, draw)
    x = prior.sample(1, draw)[0]
    exact = numbers = prior.to(torch.float64)
    tokens = model.tokens(prior)
    errors = np.empty((3, updates, n))
    for turn in range(updates):
        x = problem.evolve(x, draw)
        data = problem.observe(x, draw)
        exact, numbers = problem.exact(exact, data), model.posterior(numbers, data)
        tokens = model.posterior_tokens(tokens, data)
        for i, now in enumerate((exact, numbers, model.mixture(tokens))):
            errors[i, turn] = (now.mean - x).square().sum(-1).numpy()
    return errors, (float(apart(exact, numbers).mean()), float(apart(exact, model.mixture(tokens)).mean()))


def one_prior(models: Models, n: int, updates: int, seed: int) -> tuple[list[Check], str]:
    """The ablation: a network that was trained for one prior, on its own and on the unseen."""
    model = models["one prior"]
    unseen, own = models["line"].recipe.problem, model.recipe.problem
    figures = []
    for problem in (own, unseen):
        case = cases(problem, model.recipe.components, n, seed)
        figures.append(bootstrap_mean(apart(case.exact, model.posterior(case.prior, case.data))))
    checks = [
        held("mean KL, 1-D, of a network trained for one prior, on that prior", figures[0], "<=", 0.02),
        held("mean KL, 1-D, of a network trained for one prior, on unseen priors", figures[1], ">", 0.02),
    ]
    return checks, f"Trained for one prior: KL {figures[0]} on it, {figures[1]} on unseen ones."


def unknown(models: Models, n: int, long: int, seed: int) -> tuple[list[Check], str]:
    """A normal law of unknown mean and log variance, beside quadrature and long Markov chains."""
    model = models["normal, 5"]
    task = tasks(model.recipe.problem, n, 30_000 + seed)
    exact, few = posteriors(task), task.first(min(100, n))
    said = {
        "5 components": _said(model, task),
        "2 components": _said(models["normal, 2"], task),
        "best one Gaussian": exact.gaussian(),
        "the prior": task.prior,
    }
    kl = {name: divergences(exact, mixture) for name, mixture in said.items()}
    later = {name: from_mixtures(exact, mixture, task.later) for name, mixture in said.items()}
    drawn = chains(few, exact, long, seed)
    batched, single = (seconds(lambda t=t: _said(model, t)) for t in (task, task.first(1)))  # type: ignore[misc]
    grid = seconds(lambda: posteriors(few), times=1) / len(few)
    behind = paired_difference(list(drawn.predicts), list(later["5 components"][: len(few)]))
    more = paired_difference(list(kl["2 components"]), list(kl["5 components"]))
    shortfall = bootstrap_mean(kl["5 components"])
    checks = [
        held("log density of the unknown, no closed form, quadrature's less ours", shortfall, "<=", 0.05),
        held("log-likelihood of later data, long Markov chains' less ours", behind, "<=", 0.05),
        Check("seconds of long Markov chains over ours, both in batches", drawn.seconds / (batched / n), ">=", 100),
        held("KL with 2 components less KL with 5", more, ">", 0),
    ]
    rows: list[list[object]] = [["quadrature", 0.0, float(exact.predicts(task.later).mean()), f"{1e6 * grid:.0f}"]]
    for name in said:
        took = f"{1e6 * batched / n:.0f}" if name == "5 components" else "-"
        rows.append([name, float(kl[name].mean()), float(later[name].mean()), took])
    told = (
        f"Markov chains: Hamiltonian, 4 of {long} draws for each of {len(few)} problems, all in a batch, scaled by the "
        f"exact covariance for free; least effective samples {drawn.effective:.0f}, {1e3 * drawn.seconds:.1f} ms a "
        f"problem. One problem alone takes the network {1e3 * single:.1f} ms, {drawn.seconds / single:.0f} times less."
    )
    return checks, table(["posterior", "KL", "later data", "us a problem"], rows) + "\n\n" + told


def _said(model: DistributionTransformer, task: Task) -> GaussianMixture:
    return model.posterior(task.prior.split(model.recipe.components), task.data)
