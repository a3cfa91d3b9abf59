"""What guided samples of 8x8 digits are like: distances to digits that no model has seen, and whether a classifier
that guided nothing sees the class that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from anystep.calibrate.interval import Interval
from anystep.diffusion import Denoiser, sample
from anystep.diffusion.evaluate import digits_conditions, quality
from anystep.diffusion.models import digits_classifier, digits_data
from anystep.diffusion.solvers import Solver
from anystep.process import Floats


@dataclass(frozen=True)
class Figures:
    """frechet: in classifier a's features. mmd: times 1,000. right: share that classifier b calls what was asked.
    evaluations, flops: of a sample."""

    frechet: float
    energy: float
    mmd: float
    sw2: float
    recall: float
    right: float
    evaluations: float
    flops: float


def figures(model: Denoiser, solver: Solver, seed: int, tuning: bool = False) -> Figures:
    """Of 500 samples with the held-out digits' classes, against those digits; tuning: against as many training ones."""
    drawn = sample(model, solver, len(digits_conditions()), digits_conditions(), seed)
    return of(drawn.x, drawn.cost.evaluations, drawn.cost.flops, tuning)


def of(x: Tensor, evaluations: float, flops: float, tuning: bool = False) -> Figures:
    """Of samples in the order of `digits_conditions()`, at a cost in all."""
    asked, n = torch.tensor(digits_conditions()), len(digits_conditions())
    q = quality(x, tuning_digits() if tuning else digits_data("held-out").images, digits_classifier("a").features)
    right = float((digits_classifier("b").labels(x) == asked).float().mean())
    return Figures(q.frechet, q.energy, 1000 * q.mmd, q.sw2, q.recall, right, evaluations / n, flops / n)


@cache
def tuning_digits() -> Tensor:
    """500 training digits of the held-out ones' classes."""
    train, asked, draw = digits_data("train"), torch.tensor(digits_conditions()), torch.Generator().manual_seed(5)
    some = [
        train.of(d).images[torch.randperm(len(train.of(d)), generator=draw)[: int((asked == d).sum())]]
        for d in range(10)
    ]
    return torch.cat(some)


def over_seeds(values: Sequence[float] | Floats) -> Interval:
    """The mean over seeds with Student's 95% interval: seeds are few, so no bootstrap."""
    from scipy.stats import t

    x = np.asarray(values, dtype=np.float64)
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def apart(ours: Sequence[Figures], theirs: Sequence[Figures], name: str) -> Interval:
    """Ours minus theirs in one figure, the same seeds paired."""
    return over_seeds([getattr(a, name) - getattr(b, name) for a, b in zip(ours, theirs, strict=True)])


def row(name: str, found: Sequence[Figures]) -> list[object]:
    """A line for a table: means over seeds."""
    mean = {k: float(np.mean([getattr(f, k) for f in found])) for k in Figures.__annotations__}
    return [
        name,
        *(mean[k] for k in ("frechet", "energy", "mmd", "sw2", "recall", "right")),
        f"{mean['evaluations']:g}",
    ]


HEAD = ["digits", "Frechet", "energy", "MMD x1000", "SW2", "recall", "right class", "evaluations"]
