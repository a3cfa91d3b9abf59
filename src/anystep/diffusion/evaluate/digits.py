"""Samples of 8x8 digits against the 500 that no model was trained on, class by class as many."""

from __future__ import annotations

import torch
from torch import Tensor

from anystep.diffusion.evaluate.neighbours import memorised
from anystep.diffusion.evaluate.quality import Quality, Spread, over, quality
from anystep.diffusion.models.digit_classifier import digits_classifier
from anystep.diffusion.models.digit_data import digits_data


def digits_conditions() -> list[int]:
    """The classes of the 500 held-out digits: what to sample for `digits_quality`, as `condition` of `sample`."""
    found: list[int] = digits_data("held-out").labels.tolist()
    return found


def digits_quality(samples: Tensor, classifier: str = "a") -> Quality:
    """The figures of samples (n, 8, 8) against the held-out digits; the Frechet distance in a classifier's features.

    Fair where the classes are those of `digits_conditions()`, and against `digits_floor()`.
    """
    return quality(samples, digits_data("held-out").images, digits_classifier(classifier).features)


def digits_floor(seeds: int = 5, classifier: str = "a") -> Spread:
    """What 500 training digits get, drawn without replacement, of each class as many as are held out."""
    return over([digits_quality(some_trained(seed), classifier) for seed in range(seeds)])


def digits_memorised(samples: Tensor, seeds: int = 5) -> float:
    """The share of samples nearer to 500 training digits than to the 500 held-out ones, class by class as many; a mean
    over draws of the former."""
    held_out = digits_data("held-out").images
    return sum(memorised(samples, some_trained(seed), held_out) for seed in range(seeds)) / seeds


def some_trained(seed: int) -> Tensor:
    """500 different training digits, of each class as many as are held out."""
    train, labels = digits_data("train"), digits_data("held-out").labels
    draw, parts = torch.Generator().manual_seed(seed), []
    for digit in range(10):
        some, n = train.of(digit).images, int((labels == digit).sum())
        parts.append(some[torch.randperm(len(some), generator=draw)[:n]])
    return torch.cat(parts)
