"""Row 32: one more step before a frozen model, on Gaussian data in closed form and on digits of varied brightness.

The models are trained the first time, in half a minute, and kept. Stated time: one minute on one quiet core.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anystep.diffusion import VP, Denoiser, Flow, Network, sample
from anystep.diffusion.guidance import OneMoreStep
from anystep.diffusion.models import MixtureDenoiser
from anystep.diffusion.models.digit_flow import DigitRecipe
from anystep.diffusion.models.first_guess import GuessRecipe, first_guess
from anystep.diffusion.solvers import DDIM, Heun
from anystep.experiments import _bright_digits as bright
from anystep.experiments._figures import held, table, unbiased
from anystep.experiments._guided_digits import over_seeds
from anystep.experiments.check import Check, Result

ROW = 32
STEPS = 20


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    n: int = 500,
    seeds: int = 5,
    recipe: DigitRecipe = bright.RECIPE,
    tuning: int = bright.TUNED,
) -> Result:
    """Check every clause of the row. n: samples a seed. Each seed trains a first guess of its own."""
    began = time.perf_counter()
    base, second = bright.model(recipe, progress), bright.tuned(recipe, tuning)
    train = bright.bright("train", 8, 1)
    guesses = [
        first_guess(train.digits.images, train.bins, bright.BINS, GuessRecipe(seed=seed + k)) for k in range(seeds)
    ]
    checks, tables = [*gaussian(seed, n)], []
    for model, only, bound in ((base, 10, 0.5), (second, 5, 0.0)):
        some, told = on_digits(model, guesses, only, bound, n, seed)
        checks += some
        tables.append(told)
        progress(told)
    parameters = sum(p.numel() for p in guesses[0].module.parameters())
    theirs = sum(p.numel() for p in base.module.parameters())
    told = (
        f"The first guess has {parameters:,} parameters, the model {theirs:,}. KS floor {floor(n, seeds):.3f}: {n} real"
    )
    told += " digits against the held-out ones. Brightness bins are drawn as held-out digits have them."
    return Result("one_more_step", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join([told, *tables]))


def gaussian(seed: int, n: int) -> list[Check]:
    """Mean and variance of samples of N(1.5, 0.8) against their closed forms, with and without the step."""
    schedule, mean, variance = VP(beta_max=4.0), 1.5, 0.8
    model, first = (MixtureDenoiser([1.0], [[mean]], [[[variance]]], s) for s in (schedule, Flow()))
    alpha, sigma = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))
    total = alpha**2 * variance + sigma**2
    more, solver = OneMoreStep(model, first), Heun(20)
    base, better = (
        sample(m, s, n, seed=seed).x[:, 0].numpy() for m, s in ((model, solver), (more, more.solver(solver)))
    )
    lost, spread = mean * (1 - alpha * np.sqrt(variance / total)), variance * sigma**2 / total
    checks = []
    for name, drawn, truth in (("one more step", better, mean), ("the model alone", base, lost)):
        checks.append(unbiased(f"Gaussian, {name}: mean", drawn, truth))
        checks.append(unbiased(f"Gaussian, {name}: variance", (drawn - drawn.mean()) ** 2 * n / (n - 1), spread))
    return checks


def hashed(model: Network) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.module.state_dict().values())).hexdigest()


def real(only: int) -> bright.Bright:
    return bright.bright("held-out", 8, 3, only)


def drawn_bins(n: int, only: int, seed: int) -> list[int]:
    bins = real(only).bins
    return [int(b) for b in bins[torch.randint(len(bins), (n,), generator=torch.Generator().manual_seed(seed))]]


def on_digits(
    model: Network, guesses: list[Network], only: int, bound: float, n: int, seed: int
) -> tuple[list[Check], str]:
    """How far mean brightness is from that of held-out digits, with the step and without."""
    before, truth, who = hashed(model), real(only).digits.images, model.name
    means = torch.stack([bright.bright("train", 8, 1).digits.images[bright.bright("train", 8, 1).bins == b].mean(0)
                         for b in range(bright.BINS)])  # fmt: skip
    arms: dict[str, list[Tensor]] = {}
    costs: dict[str, float] = {}

    def add(name: str, guided: Denoiser, steps: int, classes: bool, k: int) -> None:
        solver = guided.solver(DDIM(steps)) if isinstance(guided, OneMoreStep) else DDIM(steps)
        drawn = sample(guided, solver, n, drawn_bins(n, only, seed + k) if classes else None, seed + k)
        arms.setdefault(name, []).append(drawn.x)
        costs[name] = drawn.cost.evaluations / n

    for k, guess in enumerate(guesses):
        add("model alone", model, STEPS, False, k)
        add("model alone, a step more", model, STEPS + 1, False, k)
        add("one more step", OneMoreStep(model, guess), STEPS, True, k)
        add("... without the brightness", OneMoreStep(model, guess), STEPS, False, k)
        add("... from the bins' true means", OneMoreStep(model, Means(means)), STEPS, True, k)
    far = {name: np.array([bright.distance(x, truth) for x in found]) for name, found in arms.items()}
    wide = {name: np.array([bright.brightness(x).std().item() for x in found]) for name, found in arms.items()}
    data = bright.brightness(truth).std().item()
    cut = over_seeds(1 - far["one more step"] / far["model alone, a step more"])
    checks = [
        held(f"{who}: deviation of mean brightness over the data's", over_seeds(wide["model alone"] / data), "<", 1.0),
        held(f"{who}: KS distance cut by one more step, of the model's at equal evaluations", cut,
             ">=" if bound else ">", bound),
        Check(f"{who}: evaluations more", costs["one more step"] - costs["model alone"], "==", 1),
        Check(f"{who}: weights that differ afterwards", float(hashed(model) != before), "==", 0),
    ]  # fmt: skip
    rows: list[list[object]] = [
        [name, str(over_seeds(far[name])), float(wide[name].mean()), f"{costs[name]:g}"] for name in arms
    ]
    rows.append(["held-out digits", "", data, ""])
    return checks, table([who, "KS distance", "deviation", "evaluations"], rows)


class Means(Denoiser):
    """The ablation without a network: the mean of the training digits in each bin."""

    def __init__(self, means: Tensor) -> None:
        self.means, self.schedule, self.shape, self.classes = means, Flow(), tuple(means.shape[1:]), len(means)
        self.name = "means"

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.forward(x, t, condition)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.means[condition]


def floor(n: int, seeds: int) -> float:
    """The mean KS distance of n real digits at brightnesses of their own."""
    pool = bright.bright("train", 8, 9).digits.images
    draws = [torch.randperm(len(pool), generator=torch.Generator().manual_seed(k))[:n] for k in range(seeds)]
    return float(np.mean([bright.distance(pool[d], real(10).digits.images) for d in draws]))
