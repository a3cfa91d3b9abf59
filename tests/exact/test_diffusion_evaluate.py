"""Distances between sets of samples against closed forms and brute force."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from anystep import UsageError
from anystep.diffusion.evaluate import (
    digits_conditions,
    digits_floor,
    digits_quality,
    energy_distance,
    frechet,
    frechet_gaussians,
    memorised,
    mmd,
    nearest,
    neighbours,
    over,
    quality,
    sliced_wasserstein,
)
from anystep.diffusion.models import digits_data


def normals(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def z_of(values: list[float], truth: float) -> float:
    """How many standard errors the mean of independent values is from the truth."""
    a = np.array(values)
    return float((a.mean() - truth) / (a.std(ddof=1) / math.sqrt(len(a))))


def folded(mean: float, deviation: float) -> float:
    """E|X| of a normal X."""
    ratio = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) + mean * math.erf(ratio / math.sqrt(2))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 1.5)])
def test_energy_distance_is_unbiased_between_normals(shift: float, scale: float) -> None:
    truth = 2 * folded(shift, math.hypot(1, scale)) - folded(0, math.sqrt(2)) - folded(0, scale * math.sqrt(2))
    found = [energy_distance(normals(2 * s, 6, 1), shift + scale * normals(2 * s + 1, 5, 1)) for s in range(2000)]
    assert abs(z_of(found, truth)) < 5


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 1.5)])
def test_mmd_is_unbiased_between_normals(shift: float, scale: float) -> None:
    d, bandwidths = 3, (0.5, 2.0)

    def kernel(variance: float, mean: float) -> float:
        """E exp(-|z|^2 / (2 h^2)) of normals with this variance, and this mean along each axis; a mean over h."""
        each = [
            (h * h / (h * h + variance)) ** (d / 2) * math.exp(-d * mean**2 / (2 * (h * h + variance)))
            for h in bandwidths
        ]
        return sum(each) / len(each)

    truth = kernel(2, 0) + kernel(2 * scale**2, 0) - 2 * kernel(1 + scale**2, shift)
    found = [mmd(normals(2 * s, 6, d), shift + scale * normals(2 * s + 1, 5, d), bandwidths) for s in range(2000)]
    assert abs(z_of(found, truth)) < 5


def test_mmds_kernel_is_set_by_what_is_compared_with() -> None:
    x, y = normals(0, 20, 2), normals(1, 30, 2)
    middle = float(torch.pdist(y).median())
    assert mmd(x, y) == mmd(x, y, [0.5 * middle, middle, 2 * middle])


def test_sliced_wasserstein_of_a_shift_is_the_shift() -> None:
    x = normals(0, 50, 1)
    assert sliced_wasserstein(x, x + 3) == pytest.approx(3, abs=1e-12)
    y = normals(1, 50, 4)
    gap = torch.tensor([1.0, -2.0, 0.5, 0.0])
    # The mean of (gap . way)^2 over directions is |gap|^2 / d.
    assert sliced_wasserstein(y, y + gap, projections=4_000) == pytest.approx(float(gap.norm()) / 2, rel=0.04)


def test_sliced_wasserstein_between_round_normals() -> None:
    d, scale, shift = 4, 1.6, 0.8
    truth = math.sqrt(shift**2 + (scale - 1) ** 2)  # |mean|^2 / d, and the deviations' difference
    found = sliced_wasserstein(normals(0, 8_000, d), shift + scale * normals(1, 8_000, d), projections=64)
    assert found == pytest.approx(truth, rel=0.06)


def test_quantiles_are_read_where_sizes_differ() -> None:
    x = normals(0, 30, 3)
    assert sliced_wasserstein(x, torch.cat([x, x])) == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(torch.zeros(1, 1), torch.tensor([[-1.0], [1.0]])) == 0.0  # a middle against a middle


@pytest.mark.parametrize("seed", range(3))
def test_frechet_between_gaussians(seed: int) -> None:
    roots = normals(seed, 2, 5, 5)
    one, other = roots @ roots.mT
    mean, other_mean = normals(seed + 9, 2, 5)
    trace = np.trace(one.numpy() + other.numpy() - 2 * np.real(sqrtm(one.numpy() @ other.numpy())))
    truth = float((mean - other_mean).square().sum()) + trace
    assert frechet_gaussians(mean, one, other_mean, other) == pytest.approx(truth, rel=1e-8)


def test_frechet_of_samples() -> None:
    x, gap = normals(0, 60, 3), torch.tensor([1.0, 2.0, -2.0])
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x + gap) == pytest.approx(9)
    spread = float(x.T.cov().trace())
    assert frechet(x, 3 * x - 2 * x.mean(0)) == pytest.approx(4 * spread)  # (3 - 1)^2 tr A, the mean unmoved


def test_neighbours_by_brute_force() -> None:
    samples, real, k = normals(0, 13, 2), 0.5 + normals(1, 11, 2), 3

    def radius(rows: Tensor, i: int) -> float:
        return sorted(float((rows[i] - r).norm()) for r in rows)[k]  # the row itself is at 0

    def gap(i: int, j: int) -> float:
        return float((real[i] - samples[j]).norm())

    pairs = list(product(range(11), range(13)))
    hits = [(i, j) for i, j in pairs if gap(i, j) <= radius(real, i)]
    found = neighbours(samples, real, k)
    assert found.recall == pytest.approx(len({i for i, j in pairs if gap(i, j) <= radius(samples, j)}) / 11)
    assert found.precision == pytest.approx(len({j for _, j in hits}) / 13)
    assert found.density == pytest.approx(len(hits) / (k * 13))
    assert found.coverage == pytest.approx(len({i for i, _ in hits}) / 11)
    assert 0 < found.recall < 1 and 0 < found.coverage < 1


def test_a_point_of_the_mean_is_precise_and_recalls_nothing() -> None:
    real = normals(0, 200, 2)
    blur = 1e-6 * normals(1, 200, 2)
    found = neighbours(blur, real)
    assert found.precision == 1.0 and found.recall == 0.0 and found.density > 1


def test_a_copy_of_training_data_is_at_distance_zero() -> None:
    train = 9 * normals(0, 9, 2, 2)
    assert nearest(torch.stack([train[4], train[4] + 0.5]), train).tolist() == pytest.approx([0.0, 1.0])


def test_a_copier_is_told_from_a_learner() -> None:
    train, held_out, fresh = normals(0, 300, 3), normals(1, 300, 3), normals(2, 300, 3)
    assert memorised(train[:50] + 1e-3, train, held_out) > 0.95
    assert memorised(held_out, train, held_out) == 0.0
    assert memorised(fresh, train, train) == 0.5  # ties
    assert abs(memorised(fresh, train, held_out) - 0.5) < 0.15  # 5 deviations of a share of 300 rows


def test_figures_over_seeds() -> None:
    real = normals(0, 40, 2)
    a, b = (quality(normals(s, 40, 2), real) for s in (1, 2))
    spread = over([a, b])
    assert spread.mean.energy == pytest.approx((a.energy + b.energy) / 2)
    assert spread.deviation.sw2 == pytest.approx(abs(a.sw2 - b.sw2) / math.sqrt(2))
    assert (spread.seeds, spread.mean.rows, over([a]).deviation.mmd) == (2, 40, 0.0)
    assert a.frechet == pytest.approx(frechet(normals(1, 40, 2), real))


def test_real_digits_are_at_the_floor_and_a_blur_is_not() -> None:
    floor, train = digits_floor(seeds=2), digits_data("train")
    assert floor.mean.recall > 0.9 and abs(floor.mean.mmd) < 2e-3
    means = torch.stack([train.of(d).images.mean(0) for d in range(10)])[digits_conditions()]
    blur = digits_quality(means + 1e-4 * normals(0, *means.shape))
    assert blur.precision == 1.0 and blur.recall == 0.0
    assert blur.mmd > 0.02 and blur.frechet > 5 * floor.mean.frechet and blur.sw2 > 4 * floor.mean.sw2


def test_what_cannot_be_compared_is_refused() -> None:
    x = normals(0, 5, 2)
    for call in (lambda: energy_distance(x, x[:1]), lambda: frechet(x, normals(0, 5, 3)), lambda: neighbours(x, x, 5)):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError, match="positive"):
        mmd(x, x, [0.0])
