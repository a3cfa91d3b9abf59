"""What do samples miss, and what do they copy? Recall, precision, density, coverage, and distance to training data.

Sources: Kynkaanniemi et al., "Improved Precision and Recall Metric" (NeurIPS 2019); Naeem et al., "Reliable Fidelity
and Diversity Metrics" (ICML 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anystep.diffusion.evaluate.distances import EXACT, flat
from anystep.errors import UsageError


@dataclass(frozen=True)
class Neighbours:
    """recall: the share of real rows that lie within a sample's ball, of radius to its k-th nearest other sample.
    precision: the share of samples within a real row's ball. density: how many real balls a sample is in, over k.
    coverage: the share of real balls with a sample in them."""

    recall: float
    precision: float
    density: float
    coverage: float


def neighbours(samples: Tensor, real: Tensor, k: int = 5) -> Neighbours:
    """All four, Euclidean. k: 1 or more, fewer than the rows of each. Never judge by precision alone: a blur of the
    mean is within everyone's ball."""
    samples, real = flat(samples, real)
    if not 1 <= k < min(len(samples), len(real)):
        raise UsageError(f"neighbours(samples, real, k={k}): k is from 1 to the rows of the smaller set, less one.")
    between = torch.cdist(real, samples, compute_mode=EXACT)
    ball, other = _radius(real, k), _radius(samples, k)
    inside = between <= ball[:, None]
    return Neighbours(
        recall=float((between <= other).any(1).double().mean()),
        precision=float(inside.any(0).double().mean()),
        density=float(inside.double().sum(0).mean() / k),
        coverage=float(inside.any(1).double().mean()),
    )


def nearest(samples: Tensor, train: Tensor) -> Tensor:
    """(n,) each sample's distance to the nearest row that the model was trained on: 0 is a copy."""
    samples, train = flat(samples, train, 1)
    return torch.cdist(samples, train, compute_mode=EXACT).amin(1)


def memorised(samples: Tensor, train: Tensor, held_out: Tensor) -> float:
    """The share of samples that lie nearer to a training row than to any held-out one, ties by half: around a half for
    a model that learned the law, 1 for one that copies. Fair where both sets have as many rows of each class."""
    trained, unseen = nearest(samples, train), nearest(samples, held_out)
    return float(((trained < unseen).double() + 0.5 * (trained == unseen).double()).mean())


def _radius(x: Tensor, k: int) -> Tensor:
    """(n,) the distance of each row to its k-th nearest other."""
    return torch.cdist(x, x, compute_mode=EXACT).kthvalue(k + 1).values
