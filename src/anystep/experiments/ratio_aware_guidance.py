"""Row 190: ratio-aware guidance on mixtures whose classes are known in closed form, and on DigitFlow.

The damping and the best constant were chosen on other seeds, and on training digits. Stated time: five minutes on one
quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.diffusion import NULL, Denoiser, sample
from anystep.diffusion.evaluate import mmd
from anystep.diffusion.guidance import ClassifierFree, RatioAware
from anystep.diffusion.models import MixtureClassifier, MixtureDenoiser, digits, ring, skewed
from anystep.diffusion.solvers import Euler
from anystep.experiments import _guided_digits as seen
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 190
STEPS, LONGER = 10, 30
SETTINGS = ((7.0, 8.0), (18.0, 16.0))  # the largest scale and the damping: pure damping of 7, and the paper's kind
SWEEP = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 7.0)
TUNING = 1_000  # the seed on which constants and dampings were chosen


class Scheduled(ClassifierFree):
    """Classifier-free guidance at a scale for each of equal steps of time."""

    def __init__(self, model: Denoiser, by_step: Floats) -> None:
        super().__init__(model, float(by_step.max()) + 1)
        self.by_step = by_step

    def scales(self, x: Tensor, t: Tensor, clean: Tensor, free: Tensor) -> Floats:
        return np.asarray(self.by_step[_step(t, len(self.by_step))])


class Watched(RatioAware):
    """Ratio-aware guidance that keeps what it did: (step, ratio, scale) of every row."""

    def __init__(self, model: Denoiser, scale: float, damping: float) -> None:
        super().__init__(model, scale, damping)
        self.kept: list[tuple[Any, Floats, Floats]] = []

    def scales(self, x: Tensor, t: Tensor, clean: Tensor, free: Tensor) -> Floats:
        found = super().scales(x, t, clean, free)
        self.kept.append((_step(t, STEPS), self.ratios(x, t, clean, free), found))
        return found

    def by_step(self, what: int) -> list[Floats]:
        """Ratios (1) or scales (2), step by step."""
        steps = np.concatenate([k[0] for k in self.kept])
        values = np.concatenate([k[what] for k in self.kept])
        return [values[steps == i] for i in range(STEPS)]


def _step(t: Tensor, steps: int) -> Any:
    return np.rint((1 - t.cpu().numpy()) * steps).astype(int)


@dataclass(frozen=True)
class Arms:
    """The guided models that are compared, by name, each with its steps."""

    ours: str
    models: dict[str, tuple[Denoiser, int]]


def arms(model: Denoiser, scale: float, damping: float, best: float, draw: Callable[[Denoiser], object]) -> Arms:
    """Ours, the constants, and our own mean schedule forwards and backwards; `draw` samples once, to see the scales."""
    watched = Watched(model, scale, damping)
    draw(watched)
    mean = np.array([s.mean() for s in watched.by_step(2)])
    return Arms(
        f"damped {scale:g}",
        {
            f"damped {scale:g}": (RatioAware(model, scale, damping), STEPS),
            "constant 7, 30 steps": (ClassifierFree(model, 7.0), LONGER),
            "constant 7": (ClassifierFree(model, 7.0), STEPS),
            f"constant {scale:g}": (ClassifierFree(model, scale), STEPS),
            "constant of equal mean": (ClassifierFree(model, float(mean.mean())), STEPS),
            "reversed in time": (Scheduled(model, mean[::-1].copy()), STEPS),
            "its mean by time alone": (Scheduled(model, mean), STEPS),
            f"best constant ({best:g})": (ClassifierFree(model, best), STEPS),
        },
    )


def run(
    seed: int = 0, progress: Callable[[str], None] = print, n: int = 1_000, seeds: int = 8, digit_seeds: int = 5
) -> Result:
    """Check every clause of the row. n: samples of a class and seed on the mixtures."""
    began = time.perf_counter()
    checks, tables = [*closed_form(seed)], []
    for scale, damping in SETTINGS:
        for mixture in (skewed(), _labelled_ring()):
            some, told = on_mixture(mixture, scale, damping, n, range(seed, seed + seeds))
            checks += some
            tables.append(told)
            progress(told)
        some, told = on_digits(scale, damping, range(seed, seed + digit_seeds))
        checks += some
        tables.append(told)
        progress(told)
    told = "\n\n".join([f"Dampings {dict(SETTINGS)}, chosen on seed {TUNING} and training digits.", *tables])
    return Result("ratio_aware_guidance", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def _labelled_ring() -> MixtureDenoiser:
    """The ring of eight, two neighbours a class."""
    m = ring()
    return MixtureDenoiser(m.weights, m.means, m.covariances, labels=np.arange(8) // 2, name="ring")


def closed_form(seed: int) -> Iterator[Check]:
    """The first ratio against |mu_c - mu| / |mu - x|, no damping against constant guidance, and the evaluations."""
    model = skewed()
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((1_000, 2)))
    t, c = torch.ones(1_000, dtype=torch.float64), torch.arange(1_000) % 2
    found = RatioAware(model, 7.0, 1.0).ratios(x, t, model(x, t, c), model(x, t, torch.full_like(c, NULL)))
    means = torch.from_numpy(
        np.stack([np.average(model.means[model.labels == k], 0, model.weights[model.labels == k]) for k in (0, 1)])
    )
    every = torch.from_numpy(model.weights @ model.means)
    exact = ((means[c] - every).norm(dim=1) / (every - x).norm(dim=1)).numpy()
    yield Check("first ratio, largest relative error to its closed form", np.abs(found / exact - 1).max(), "<=", 1e-9)
    plain = sample(ClassifierFree(model, 7.0), Euler(STEPS), 500, 1, seed)
    aware = sample(RatioAware(model, 7.0, 0.0), Euler(STEPS), 500, 1, seed)
    damped = sample(RatioAware(model, 7.0, 8.0), Euler(STEPS), 500, 1, seed)
    yield Check("no damping: numbers that differ from constant 7's", float((plain.x != aware.x).sum()), "==", 0)
    more = damped.cost.evaluations - plain.cost.evaluations
    yield Check("evaluations more than constant guidance's at equal steps", float(more), "==", 0)


def on_mixture(model: MixtureDenoiser, scale: float, damping: float, n: int, seeds: range) -> tuple[list[Check], str]:
    """Class-conditional MMD and class accuracy, paired over seeds; the class goes round with the seed."""
    classifier = MixtureClassifier(model)

    def figures(guided: Denoiser, steps: int, seed: int) -> tuple[float, float]:
        c = seed % model.classes
        x = sample(guided, Euler(steps), n, c, seed).x
        right = classifier(x, torch.zeros(n)).exp()[:, c].mean()
        return 1000 * mmd(x, model.draw(n, 50_000 + seed, c)), float(right)

    tried = [np.mean([figures(ClassifierFree(model, s), STEPS, TUNING + k)[0] for k in (0, 1)]) for s in SWEEP]
    best = SWEEP[int(np.argmin(tried))]
    found = arms(model, scale, damping, best, lambda m: sample(m, Euler(STEPS), n, 1, TUNING))
    values = {k: np.array([figures(m, s, seed) for seed in seeds]) for k, (m, s) in found.models.items()}
    ours, who = values[found.ours], f"{model.name}, {found.ours}"
    checks = []
    for name in ("constant 7, 30 steps", "constant of equal mean", "reversed in time", f"best constant ({best:g})"):
        gap = seen.over_seeds(ours[:, 0] - values[name][:, 0])
        checks.append(held(f"{who} at {STEPS} steps: MMD x1000 minus that of {name}", gap, "<", 0.0))
    gap = seen.over_seeds(ours[:, 1] - values[f"best constant ({best:g})"][:, 1])
    checks.append(held(f"{who}: probability of the class minus that of the best constant", gap, ">=", 0.0))
    watched = Watched(model, scale, damping)
    sample(watched, Euler(STEPS), n, 1, TUNING)
    real = np.mean([1000 * mmd(model.draw(n, seed, s), model.draw(n, 90_000 + seed, s))
                    for seed in seeds for s in [seed % model.classes]])  # fmt: skip
    rows: list[list[object]] = [[k, float(v[:, 0].mean()), float(v[:, 1].mean())] for k, v in values.items()]
    rows.append(["real", float(real), ""])
    return checks, f"{table([model.name, 'MMD x1000', 'class'], rows)}\n\n{_quantiles(watched)}"


def _quantiles(watched: Watched) -> str:
    rows: list[list[object]] = []
    for i, (ratios, scales) in enumerate(zip(watched.by_step(1), watched.by_step(2), strict=True)):
        low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9]).tolist()
        rows.append([i, low, middle, high, float(scales.mean())])
    return table(["step", "ratio 10%", "50%", "90%", "mean scale"], rows)


def on_digits(scale: float, damping: float, seeds: range) -> tuple[list[Check], str]:
    """Frechet, with MMD beside it, and whether a classifier sees the class."""
    model = digits()
    tried = [seen.figures(ClassifierFree(model, s), Euler(STEPS), TUNING, tuning=True).frechet for s in SWEEP]
    best = SWEEP[int(np.argmin(tried))]
    found = arms(model, scale, damping, best, lambda m: seen.figures(m, Euler(STEPS), TUNING, tuning=True))
    values = {k: [seen.figures(m, Euler(s), seed) for seed in seeds] for k, (m, s) in found.models.items()}
    ours, who, checks = values[found.ours], f"DigitFlow, {found.ours}", []
    for name in ("constant 7, 30 steps", "constant of equal mean", "reversed in time", f"best constant ({best:g})"):
        for figure in ("frechet", "mmd"):
            gap = seen.apart(ours, values[name], figure)
            checks.append(held(f"{who} at {STEPS} steps: {figure} minus that of {name}", gap, "<", 0.0))
    gap = seen.apart(ours, values["constant 7, 30 steps"], "right")
    checks.append(held(f"{who}: share of the right class minus that of constant 7 at 30 steps", gap, ">=", 0.0))
    return checks, table(seen.HEAD, [seen.row(k, v) for k, v in values.items()])
