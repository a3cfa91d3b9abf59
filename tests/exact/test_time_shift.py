"""The time-shift sampler: window 0 is its base to the bit, and on Gaussians the time it finds is the one that fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion import VP, Karras, TimeShiftSampler, sample
from anystep.diffusion.models import skewed
from anystep.diffusion.solvers import DDIM, DDPM, PNDM, DPMpp2M, Heun, Solver, few_step

BASES: list[Solver] = [DDIM(6), DDPM(6), PNDM(6), DPMpp2M(6, Karras()), Heun(4), few_step(6)]


@pytest.mark.parametrize("form", ["state", "network", "target"])
@pytest.mark.parametrize("base", BASES, ids=repr)
def test_window_zero_is_the_base_to_the_bit(base: Solver, form: str) -> None:
    plain = sample(skewed(VP()), base, 16, seed=3)
    wrapped = sample(skewed(VP()), TimeShiftSampler(base, window=0.0, cutoff=0.0, form=form), 16, seed=3)  # type: ignore[arg-type]
    assert wrapped.x.equal(plain.x) and wrapped.cost.same(plain.cost)


@pytest.mark.parametrize("form", ["state", "network", "target"])
@pytest.mark.parametrize("base", BASES, ids=repr)
def test_a_window_costs_no_evaluation_and_changes_samples(base: Solver, form: str) -> None:
    plain = sample(skewed(VP()), base, 16, seed=3)
    wrapped = sample(skewed(VP()), TimeShiftSampler(base, window=0.1, cutoff=0.0, form=form), 16, seed=3)  # type: ignore[arg-type]
    assert wrapped.cost.same(plain.cost) and not wrapped.x.equal(plain.x) and bool(wrapped.x.isfinite().all())


@pytest.mark.parametrize("data", [0.0, 0.05, 0.5])
def test_the_time_found_is_the_one_that_fits(data: float) -> None:
    """Gaussian data of variance `data` in 4,096 dimensions whose noised variance is off by up to a tenth: the matching
    time solves sigma^2 + data alpha^2 = variance, and the chosen one follows it within the window's resolution and the
    noise of a variance of 4,096 numbers (5 standard errors)."""
    schedule, d = VP(), 4_096
    sampler = TimeShiftSampler(DDIM(20), window=0.2, cutoff=0.0, data=data)
    grid = sampler.grid(schedule)
    draw = torch.Generator().manual_seed(0)
    for index in (12, 14, 16):
        alpha, sigma = float(schedule.alpha(grid[index])), float(schedule.sigma(grid[index]))
        true = (sigma**2 + data * alpha**2) * np.linspace(0.9, 1.1, 9)
        wanted = schedule.when(-np.log((1 - true) / (1 - data)))
        low, high = np.maximum(grid[index] - 0.1, (grid[index] + grid[index + 1]) / 2), grid[index] + 0.1
        x = torch.randn(9, d, generator=draw, dtype=torch.float64) * torch.from_numpy(true).sqrt()[:, None]
        found = sampler.shown(x, np.full(9, index), grid, schedule)
        slope = schedule.beta(wanted) * (1 - true)  # d variance / dt
        noise = 5 * true * np.sqrt(2 / d) / slope
        assert (np.abs(found - np.clip(wanted, low, high)) <= 0.2 / 100 + noise).all()


def test_the_first_point_and_those_below_the_cutoff_stay() -> None:
    sampler = TimeShiftSampler(DDIM(10), window=0.2, cutoff=0.5)
    grid = sampler.grid(VP())
    index = np.arange(11)
    x = 3 * torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    moved = sampler.shown(x, index, grid, VP()) != grid[index]
    assert (moved == ((index > 0) & (grid[index] > 0.5))).all()


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="0 or more"):
        TimeShiftSampler(DDIM(5), window=-1.0)
    with pytest.raises(UsageError, match="'target'"):
        TimeShiftSampler(DDIM(5), form="backwards")  # type: ignore[arg-type]
