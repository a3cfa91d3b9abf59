"""All figures of a set of samples at once, and the floor: what real data gets against other real data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from torch import Tensor

from anystep.diffusion.evaluate.distances import energy_distance, mmd, sliced_wasserstein
from anystep.diffusion.evaluate.frechet import frechet
from anystep.diffusion.evaluate.neighbours import neighbours


@dataclass(frozen=True)
class Quality:
    """Of samples against real data: distances (less is better; energy and MMD around 0 for the right law, sliced
    Wasserstein and Frechet above), shares (more is better), and how many rows were compared."""

    energy: float
    mmd: float
    sw2: float
    frechet: float
    recall: float
    precision: float
    density: float
    coverage: float
    rows: int


@dataclass(frozen=True)
class Spread:
    """The mean and the standard deviation of each figure over seeds."""

    mean: Quality
    deviation: Quality
    seeds: int


def quality(
    samples: Tensor, real: Tensor, features: Callable[[Tensor], Tensor] | None = None, k: int = 5, seed: int = 0
) -> Quality:
    """The figures of `samples` against `real`, both (n, ...).

    features: what the Frechet distance is taken in, such as `digits_classifier("a").features`; by default the rows
    themselves. k: of the neighbour figures. seed: of the sliced distance's directions.
    """
    near = neighbours(samples, real, k)
    ours, theirs = (samples, real) if features is None else (features(samples), features(real))
    return Quality(
        energy_distance(samples, real), mmd(samples, real), sliced_wasserstein(samples, real, seed=seed),
        frechet(ours, theirs), near.recall, near.precision, near.density, near.coverage, len(samples),
    )  # fmt: skip


def over(found: Sequence[Quality]) -> Spread:
    """Mean and standard deviation (with n - 1; 0 for one) of several qualities, one a seed."""
    names = [f.name for f in fields(Quality) if f.name != "rows"]
    values = np.array([[getattr(q, name) for name in names] for q in found], dtype=np.float64)
    spread = values.std(0, ddof=1) if len(found) > 1 else np.zeros(values.shape[1])
    mean, deviation = (replace(found[0], **dict(zip(names, v.tolist(), strict=True))) for v in (values.mean(0), spread))
    return Spread(mean, deviation, len(found))
