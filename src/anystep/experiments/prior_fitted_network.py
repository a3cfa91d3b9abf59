"""Row 170: prior-fitted networks against exact posteriors, MCMC and logistic regression; and when to doubt them.

Stated time: five minutes on one quiet core, and twenty more the first time, when eight networks are trained (then they
are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.bayes import GPPrior, PFNRecipe, PriorFittedNetwork, TabularPrior
from anystep.bayes.amortised.bars import Bars
from anystep.bayes.amortised.pfn_recipe import PFN, trained
from anystep.calibrate.interval import Interval, bootstrap_mean, wilson
from anystep.experiments._few_shot import SIZES, Table, accuracies, tables
from anystep.experiments._figures import held, paired, table
from anystep.experiments._gaussian_processes import conditional, exact, integrated
from anystep.experiments._gp_chains import Sampled, sampled
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 170
HYPER = GPPrior(lengthscale=(0.25, 0.6), outputscale=(1.0, 0.5), noise=(0.04, 0.8))


@dataclass(frozen=True)
class Recipes:
    """The networks: of a fixed kernel, of one with hyper-priors, of tables; and how much less the ablations learn."""

    fixed: PFNRecipe = field(default_factory=PFNRecipe)
    hyper: PFNRecipe = field(default_factory=lambda: PFNRecipe(prior=HYPER, updates=5_000))
    tabular: PFNRecipe = field(
        default_factory=lambda: PFNRecipe(prior=TabularPrior(), context=40, points=60, updates=3_000, rate=1e-3)
    )
    part: int = 4


@dataclass(frozen=True)
class Sizes:
    """How much of everything: datasets a context size, those of quadrature and of MCMC, draws, splits of a table."""

    sets: int = 400
    integrated: int = 250
    chained: int = 64
    draws: int = 100
    checked: int = 400
    splits: int = 200
    repeats: int = 5


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    recipes: Recipes | None = None,
    sizes: Sizes | None = None,
    data: tuple[Table, list[Table]] | None = None,
) -> Result:
    """Check every clause of the row."""
    began, recipes, sizes = time.perf_counter(), recipes or Recipes(), sizes or Sizes()
    draw = torch.Generator().manual_seed(1_000 + seed)
    parts = (
        fixed(recipes, sizes, draw, progress),
        hyper(recipes, sizes, draw, seed, progress),
        doubts(recipes, sizes, draw, progress),
        few_shot(recipes, sizes, seed, progress, data or tables()),
    )
    checks = tuple(check for found, _ in parts for check in found)
    for check in checks:
        progress(str(check))
    notes = "\n\n".join(told for _, told in parts)
    return Result("prior_fitted_network", ROW, checks, time.perf_counter() - began, seed, notes)


def said(model: PFN, x: Tensor, y: Tensor, n: int) -> Tensor:
    """Log density (sets, queries) of the points after the first n, told these."""
    with torch.no_grad():
        return model.head.log_prob(model(x[:, :n], y[:, :n], x[:, n:]), y[:, n:])


def shorter(recipe: PFNRecipe, part: int, **changes: Any) -> PFNRecipe:
    return replace(recipe, updates=recipe.updates // part, **changes)


def fixed(
    recipes: Recipes, sizes: Sizes, draw: torch.Generator, progress: Callable[[str], None]
) -> tuple[list[Check], str]:
    """Gaps to the closed form, with less training too, invariance and normalisation."""
    recipe, part = recipes.fixed, recipes.part
    variants = {
        "in full": recipe,
        f"1/{part} of the updates": shorter(recipe, part),
        f"1/{part**2}": shorter(recipe, part**2),
        f"1/{part}, gaussian head": shorter(recipe, part, head="gaussian"),
        f"1/{part}, uniform split": shorter(recipe, part, split="uniform"),
    }
    models = {name: trained(variant, progress) for name, variant in variants.items()}
    found: dict[str, list[Floats]] = {name: [] for name in models}
    for n in range(1, recipe.context + 1):
        x, y = recipe.prior.draw(sizes.sets, n + 20, draw)
        assert isinstance(recipe.prior, GPPrior)
        truth = exact(recipe.prior, x[:, :n], y[:, :n], x[:, n:], y[:, n:])
        for name, model in models.items():
            found[name].append((truth - said(model, x, y, n)).mean(1).numpy())
    gaps = {name: np.stack(each, -1) for name, each in found.items()}  # (sets, context sizes)
    ours, quarter, less = (gaps[name] for name in list(gaps)[:3])
    worst = int(ours.mean(0).argmax())
    model = models["in full"]
    checks = [
        held(
            f"fixed kernel: gap to exact in nats, at the worst of 1 to {recipe.context} points, {worst + 1}",
            bootstrap_mean(ours[:, worst]),
            "<=",
            0.1,
        ),
        held("the same at 1 and 2 points", bootstrap_mean(ours[:, :2].mean(1)), "<=", 0.03),
        held("gap's fall, updates from 1/16 to 1/4", paired(less.mean(1), quarter.mean(1)), ">", 0.0),
        held("gap's fall, updates from 1/4 to all", paired(quarter.mean(1), ours.mean(1)), ">", 0.0),
        Check("change of bars' masses and means when the context is shuffled", shuffled(model, draw), "<=", 1e-5),
        Check("distance from one of densities' integrals", unnormalised(model, draw), "<=", 1e-5),
    ]
    at = [n for n in (1, 2, 5, 10, 20, 30) if n <= recipe.context]
    rows: list[list[object]] = [
        [name, *(float(each[:, n - 1].mean()) for n in at), str(bootstrap_mean(each.mean(1)))]
        for name, each in gaps.items()
    ]
    head = ["gap, nats a point", *(f"n = {n}" for n in at), "all sizes"]
    return checks, f"Fixed kernel, {sizes.sets} datasets a size, 20 queries each.\n\n{table(head, rows)}"


@torch.no_grad()
def shuffled(model: PFN, draw: torch.Generator) -> float:
    """The largest change of a bar's mass or of a mean over 20 orders of 50 contexts."""
    n, most = 30, 0.0
    x, y = model.prior.draw(50, n + 20, draw)
    before = model(x[:, :n], y[:, :n], x[:, n:])
    for _ in range(20):
        order = torch.randperm(n, generator=draw)
        after = model(x[:, order], y[:, order], x[:, n:])
        masses = (after.softmax(-1) - before.softmax(-1)).abs().max()
        means = (model.head.mean(after) - model.head.mean(before)).abs().max()
        most = max(most, float(masses), float(means))
    return most


@torch.no_grad()
def unnormalised(model: PFN, draw: torch.Generator) -> float:
    """The largest distance from one of 200 predictive densities' integrals, by Gauss's rule between the borders."""
    head = model.head
    assert isinstance(head, Bars)
    x, y = model.prior.draw(50, 14, draw)
    logits = model(x[:, :10], y[:, :10], x[:, 10:]).double().view(-1, 1, head.size)
    borders = head.borders.double()
    far = 25 * borders.diff()[[0, -1]] * torch.tensor([-1.0, 1.0])
    ends = torch.cat([borders[1:2] + far[:1] * torch.linspace(1, 0, 40).double()[:-1], borders[1:-1]])
    ends = torch.cat([ends, borders[-2] + far[1] * torch.linspace(0, 1, 40).double()[1:]])
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(8))
    half = ends.diff() / 2
    at = ((ends[:-1] + ends[1:])[:, None] / 2 + half[:, None] * nodes).flatten()
    mass = (half[:, None] * weights).flatten()
    density = head.log_prob(logits.expand(-1, len(at), -1), at.expand(len(logits), -1)).exp()
    return float((density @ mass - 1).abs().max())


def hyper(
    recipes: Recipes, sizes: Sizes, draw: torch.Generator, seed: int, progress: Callable[[str], None]
) -> tuple[list[Check], str]:
    """Hyper-priors: against quadrature, and against HMC of known effective size, with what each takes."""
    recipe, prior = recipes.hyper, recipes.hyper.prior
    assert isinstance(prior, GPPrior)
    model, rows = trained(recipe, progress), []
    ablated = {h: trained(shorter(recipe, recipes.part, head=h), progress) for h in ("bars", "gaussian")}
    checks = []
    for n in (n for n in (5, recipe.context) if n <= recipe.context):
        x, y = prior.draw(sizes.integrated, n + 10, draw)
        truth = integrated(prior, x[:, :n], y[:, :n], x[:, n:], y[:, n:])
        each = {"in full": model, **{f"1/{recipes.part}, {h}": m for h, m in ablated.items()}}
        gap = {name: (truth - said(m, x, y, n)).mean(1).numpy() for name, m in each.items()}
        clause = f"hyper-priors: gap to quadrature in nats at {n} points"
        checks.append(held(clause, bootstrap_mean(gap["in full"]), "<=", 0.1))
        rows.append([n, *(str(bootstrap_mean(values)) for values in gap.values())])
    n = min(20, recipe.context)
    x, y = prior.draw(sizes.chained, n + 10, draw)
    chains = sampled(prior, x, y, n, sizes.draws, seed)
    ours = said(model, x, y, n).double().mean(1).numpy()
    quadrature = integrated(prior, x[:, :n], y[:, :n], x[:, n:], y[:, n:]).mean(1).numpy()
    distance = abs(float((chains.log_density - quadrature).mean()))
    seconds = timed(lambda: said(model, *prior.draw(256, n + 10, draw), n), sizes.repeats) / 256
    ratios = chains.seconds / seconds
    gap_to_chains = paired(chains.log_density, ours)
    checks += [
        held(f"hyper-priors: gap to HMC in nats at {n} points", gap_to_chains, "<=", 0.1),
        Check("HMC's distance from quadrature in nats", distance, "<=", 0.03),
        held(
            f"HMC's processor time a dataset over the network's, both batched, HMC's least effective size of "
            f"{chains.ess.min():.0f} (median {np.median(chains.ess):.0f})",
            Interval(float(np.median(ratios)), float(ratios.min()), float(ratios.max())),
            ">=",
            50.0,
        ),
    ]
    told = table(["n", "in full", *list(gap)[1:]], rows)
    notes = (
        f"Hyper-priors on lengthscale, outputscale and noise; gaps to quadrature on {sizes.integrated} datasets.\n\n"
        f"{told}\n\n{clock(recipes, sizes, chains, seconds, draw)}"
    )
    return checks, notes


def timed(of: Callable[[], object], repeats: int) -> Floats:
    """Processor seconds of each of some runs, after one that is not counted."""
    of()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        of()
        found.append(time.process_time() - began)
    return np.array(found)


def clock(recipes: Recipes, sizes: Sizes, chains: Sampled, seconds: Floats, draw: torch.Generator) -> str:
    """What a dataset takes, in milliseconds of processor, one and 256 at a time."""
    model, prior = trained(recipes.fixed), recipes.fixed.prior
    assert isinstance(prior, GPPrior)
    n = min(20, recipes.fixed.context)
    rows: list[list[object]] = [
        ["HMC over hyper-parameters", float("nan"), 1e3 * chains.seconds],
        ["network, hyper-priors", float("nan"), 1e3 * float(np.median(seconds))],
    ]
    for name in ("network, fixed kernel", "exact, fixed kernel"):
        took = []
        for sets in (1, 256):
            x, y = prior.draw(sets, n + 10, draw)

            def ask(x: Tensor = x, y: Tensor = y, name: str = name) -> object:
                if name.startswith("network"):
                    return said(model, x, y, n)
                return conditional(prior, x[:, :n], y[:, :n], x[:, n:], torch.zeros(3))

            took.append(1e3 * float(np.median(timed(ask, 4 * sizes.repeats))) / sets)
        rows.append([name, *took])
    return (
        f"Milliseconds a dataset of {n} points and 10 queries ({sizes.chained} of HMC's at a time, 4 chains each, "
        f"{chains.gradients} gradients a chain):\n\n{table(['', 'one at a time', 'many at a time'], rows)}"
    )


def doubts(
    recipes: Recipes, sizes: Sizes, draw: torch.Generator, progress: Callable[[str], None]
) -> tuple[list[Check], str]:
    """How often the check alarms at 0.05: on the prior's data, and on other data, with what is then lost."""
    recipe, n = recipes.fixed, min(20, recipes.fixed.context)
    prior = recipe.prior
    assert isinstance(prior, GPPrior)
    model = PriorFittedNetwork(recipe, say=progress)
    wiggly = replace(prior, lengthscale=(prior.lengthscale[0] / 4, 0.0))
    noisy = replace(prior, noise=(10 * prior.noise[0], 0.0))
    x, y = prior.draw(sizes.checked, n, draw)
    elsewhere = x + 1.0
    kinds = {
        "the prior's own": (x, y),
        "lengthscale a quarter": wiggly.draw(sizes.checked, n, draw),
        "noise variance tenfold": noisy.draw(sizes.checked, n, draw),
        "y trebled": (x, 3 * y),
        "x one to the right": (elsewhere, y),
        "y constant": (x, torch.full_like(y, 0.5)),
    }
    alarms = {}
    for name, (told, values) in kinds.items():
        p = model.fit(told, values).check(draws=399).p
        alarms[name] = wilson(int((p <= 0.05).sum()), len(p))
    usual, others = alarms["the prior's own"], [a for name, a in alarms.items() if name != "the prior's own"]
    weakest = min(others, key=lambda a: a.value)
    checks = [
        held("share of the prior's own datasets on which the check alarms at 0.05", usual, "<=", 0.09),
        held("share of datasets from outside, at the kind least found", weakest, ">=", 0.8),
    ]
    rows: list[list[object]] = [[name, str(found)] for name, found in alarms.items()]
    return checks, f"Alarms at p <= 0.05, {n} points.\n\n{table(['data', 'share alarmed'], rows)}"


def few_shot(
    recipes: Recipes, sizes: Sizes, seed: int, progress: Callable[[str], None], data: tuple[Table, list[Table]]
) -> tuple[list[Check], str]:
    """Accuracy against logistic regression on the same ten components and the same splits."""
    model, (cancer, pairs) = PriorFittedNetwork(recipes.tabular, say=progress), data
    alone = accuracies(model, cancer, sizes.splits, seed)
    by_pair = [accuracies(model, pair, max(2, sizes.splits // 10), seed) for pair in pairs]
    together = {name: np.stack([found[name].mean(0) for found in by_pair]) for name in alone}
    checks, rows = [], []
    for what, found in (("breast cancer", alone), (f"{len(pairs)} pairs of digits", together)):
        for base in list(found)[1:]:
            difference = paired(found["network"].mean(1), found[base].mean(1))
            checks.append(held(f"{what}: accuracy less that of {base}", difference, ">=", 0.0))
        rows += [[what, name, *(float(v) for v in values.mean(0))] for name, values in found.items()]
    head = ["table", "method", *(f"{n} labels" for n in SIZES)]
    return checks, (
        f"Ten principal components of all rows, labels unseen, for both; {sizes.splits} splits of breast cancer, "
        f"{max(2, sizes.splits // 10)} of each pair (digits' intervals are over pairs).\n\n{table(head, rows)}"
    )
