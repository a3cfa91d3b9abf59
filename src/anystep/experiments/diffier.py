"""Row 3: DiffIER, as reconstructed, against guided paths of 1,000 steps on mixtures, and on DigitFlow.

Nothing was tuned: one iteration, at the length that solves a linear step. Stated time: four minutes on one quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion import Denoiser, sample
from anystep.diffusion.evaluate import digits_conditions
from anystep.diffusion.guidance import ClassifierFree, DiffIER
from anystep.diffusion.models import MixtureDenoiser, digits, ring, skewed
from anystep.diffusion.solvers import DDIM, Here, Solver
from anystep.experiments import _guided_digits as seen
from anystep.experiments._figures import held, ratio, table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 3
STEPS, PATH = 20, 1_000
SCALES = (1.0, 2.0, 4.0, 6.0, 8.0)
EQUAL = STEPS + 3 * (STEPS - 1)  # steps of DDIM that cost what one iteration at every step does


@dataclass(frozen=True)
class FixedPoint(DiffIER):
    """The ablation without gradients: x' is replaced by F(x'), for one evaluation an iteration."""

    def stages(self, index: NDArray[np.int64], grid: Floats) -> list[Floats]:
        return [np.where(index < self.steps - 1, grid[index + 1], np.nan)] * self.iterations

    def move(self, here: Here, x: Tensor, inner: NDArray[np.bool_]) -> Tensor:
        return self.left_out(here, x, inner)


ARMS: dict[str, Solver] = {
    "DDIM": DDIM(STEPS),
    "DiffIER, 1 iteration": DiffIER(STEPS, iterations=1),
    "DiffIER, 3 iterations": DiffIER(STEPS, iterations=3),
    "fixed point, 1": FixedPoint(STEPS, iterations=1),
    "DDIM, equal evaluations": DDIM(EQUAL),
}
OURS = "DiffIER, 1 iteration"


def run(
    seed: int = 0, progress: Callable[[str], None] = print, n: int = 100, seeds: int = 3, path: int = PATH
) -> Result:
    """Check every clause of the row. n: samples on each mixture and scale; path: steps of the path taken as true."""
    began = time.perf_counter()
    labelled = ring()
    pairs = MixtureDenoiser(
        labelled.weights, labelled.means, labelled.covariances, labels=np.arange(8) // 2, name="ring"
    )
    checks, tables = [zero(seed)], []
    for model in (skewed(), pairs):
        some, told = on_mixture(model, n, path, seed)
        checks += some
        tables.append(told)
        progress(told)
    some, told = on_digits(range(seed, seed + seeds))
    progress(told)
    return Result("diffier", ROW, (*checks, *some), time.perf_counter() - began, seed, "\n\n".join([*tables, told]))


def zero(seed: int) -> Check:
    """No iterations against DDIM, on DigitFlow."""
    guided = ClassifierFree(digits(), 4.0)
    plain, same = (sample(guided, s, 100, 3, seed).x for s in (DDIM(STEPS), DiffIER(STEPS, iterations=0)))
    return Check("zero iterations: numbers that differ from plain guidance's", float((plain != same).sum()), "==", 0)


def on_mixture(model: MixtureDenoiser, n: int, path: int, seed: int) -> tuple[list[Check], str]:
    """The distance to where a guided path of many steps leads from the same noise."""
    checks, rows = list[Check](), list[list[object]]()
    for scale in SCALES:
        guided = ClassifierFree(model, scale)
        end = sample(guided, DDIM(path), n, 1, seed).x
        apart = {k: (sample(guided, s, n, 1, seed).x - end).norm(dim=1).numpy() for k, s in ARMS.items()}
        left = ratio(apart[OURS], apart["DDIM"])
        clause = f"{model.name}, scale {scale:g}: distance to the path of {path} steps, over plain guidance's"
        checks.append(held(clause, left, "<=", 0.7))
        rows.append([f"{scale:g}", *(float(apart[k].mean()) for k in ARMS)])
    return checks, table([f"{model.name}: scale", *ARMS], rows)


def on_digits(seeds: range) -> tuple[list[Check], str]:
    """The model's own training loss on the samples, and how far the Frechet distance varies with the scale."""
    model, found = digits(), dict[tuple[str, float], list[seen.Figures]]()
    losses = dict[tuple[str, float], list[float]]()
    for name in ("DDIM", OURS, "fixed point, 1", "DDIM, equal evaluations"):
        for scale in SCALES:
            for seed in seeds:
                drawn = sample(ClassifierFree(model, scale), ARMS[name], 500, digits_conditions(), seed)
                figures = seen.of(drawn.x, drawn.cost.evaluations, drawn.cost.flops)
                found.setdefault((name, scale), []).append(figures)
                losses.setdefault((name, scale), []).append(training_loss(model, drawn.x, seed))
    checks = []
    for scale in SCALES:
        left = seen.over_seeds(np.divide(losses[OURS, scale], losses["DDIM", scale]))
        checks.append(held(f"digits, scale {scale:g}: training loss on the samples, over plain's", left, "<=", 0.7))
    for figure in ("frechet", "energy"):
        values = {k: np.array([[getattr(f, figure) for f in found[k, s]] for s in SCALES]) for k, _ in found}
        width = {k: np.ptp(v, axis=0) for k, v in values.items()}
        shrunk = seen.over_seeds(width[OURS] / width["DDIM"])
        checks.append(held(f"digits: spread of {figure} over the scales, over plain's", shrunk, "<=", 0.75))
        best = {k: v.min(0) for k, v in values.items()}
        gap = seen.over_seeds(best[OURS] - best["DDIM, equal evaluations"])
        checks.append(held(f"digits: best {figure} minus that of plain guidance at equal evaluations", gap, "<=", 0.0))
    rows = [
        [*seen.row(f"{name}, scale {scale:g}", some), float(np.mean(losses[name, scale]))]
        for (name, scale), some in found.items()
    ]
    return checks, table([*seen.HEAD, "training loss"], rows)


def training_loss(model: Denoiser, x: Tensor, seed: int) -> float:
    """Mean squared error of what the model predicts behind samples that are made noisy again, over nine times."""
    asked, draw, total = torch.tensor(digits_conditions()), torch.Generator().manual_seed(seed), 0.0
    with torch.no_grad():
        for time_ in np.linspace(0.1, 0.9, 9).tolist():
            noisy = (1 - time_) * x + time_ * torch.randn(x.shape, generator=draw)
            t = torch.full((len(x),), time_, dtype=torch.float64)
            total += float(((model(noisy, t, asked) - x) ** 2).mean()) / 9
    return total
