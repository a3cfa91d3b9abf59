"""Row 35: the time-shift sampler around DDPM, DDIM and F-PNDM on digits whose noise is predicted, and on Gaussians.

Window, cutoff and form are tuned for each base and count of steps on one set of noises, and measured on others. The
digits are 8x8; F-PNDM takes four evaluations in each of its first three steps, so its 5 steps are 14 and its 10 are 19.

Stated time: two minutes on one quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.calibrate.interval import Interval
from anystep.diffusion import VP, Denoiser, Schedule, TimeShiftSampler, sample
from anystep.diffusion.evaluate import Quality, digits_conditions, digits_quality
from anystep.diffusion.models import digits, digits_data, skewed
from anystep.diffusion.solvers import DDIM, DDPM, PNDM, Solver
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 35
STEPS = (5, 10)
BASES: dict[str, Callable[[int], Solver]] = {"DDPM": DDPM, "DDIM": DDIM, "F-PNDM": PNDM}
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57}  # two-sided 95% points of t by number of seeds


@dataclass(frozen=True)
class Found:
    """One base at one count of steps: its qualities, the shifted one's, the ablations', and what was tuned."""

    base: list[Quality]
    shifted: list[Quality]
    ablations: dict[str, list[Quality]]
    sampler: TimeShiftSampler
    evaluations: tuple[int, int]


class FixedShift(TimeShiftSampler):
    """The ablation: every time moves by the same share of the window, whatever the state."""

    share = 0.25

    def shifted(self, x: Tensor, times: Floats, index: NDArray[np.int64], grid: Floats, schedule: Schedule) -> Floats:
        moves = (index > 0) & (times > self.cutoff)
        return np.where(moves, np.minimum(times + self.share * self.window, schedule.last), times)


def run(seed: int = 0, progress: Callable[[str], None] = print, seeds: int = 5) -> Result:
    """Check every clause of the row. seeds: sets of 500 digits, apart from the one that is tuned on."""
    began = time.perf_counter()
    checks = [window_zero(), *tracking(seed)]
    model, images = digits("epsilon"), digits_data("train").images
    data = float(images.flatten(1).var(1).mean())
    found: dict[tuple[str, int], Found] = {}
    for name, steps in product(BASES, STEPS):
        one = found[name, steps] = compared(model, BASES[name](steps), data, seed, seeds)
        progress(f"{name}, {steps} steps: Frechet {_mean(one.base):.3f}, shifted {_mean(one.shifted):.3f}")
    for name, figure in product(BASES, ("frechet", "energy")):
        ours, theirs = ([q for n in STEPS for q in getattr(found[name, n], side)] for side in ("shifted", "base"))
        clause = f"digits: mean {figure} at 5 and 10 steps, shifted over {name}"
        checks.append(held(clause, quotient(ours, theirs, figure), "<=", 0.95))
    apart = sum(abs(a - b) for a, b in (one.evaluations for one in found.values()))
    checks.append(Check("digits: evaluations on the ledgers apart from the bases'", apart, "==", 0))
    checks.append(overhead(model, found["DDIM", 10].sampler))
    return Result("time_shift_sampler", ROW, tuple(checks), time.perf_counter() - began, seed, notes(found, data))


def compared(model: Denoiser, base: Solver, data: float, seed: int, seeds: int) -> Found:
    """The base against the shifted sampler that did best on noises of its own."""
    options = product((0.05, 0.15), (0.1, 0.5), ("state", "network"))
    tried = [TimeShiftSampler(base, w, c, data, form) for w, c, form in options]  # type: ignore[arg-type]
    best = min(tried, key=lambda s: _mean(qualities(model, s, 50_000 + seed, 1)))
    fixed = FixedShift(base, best.window, best.cutoff, data, best.form)
    ablations = {
        "without the data's variance": TimeShiftSampler(base, best.window, best.cutoff, 0.0, best.form),
        "a fixed shift": fixed,
    }
    counts = tuple(sample(model, s, 10, 3).cost.evaluations for s in (base, best))
    return Found(
        qualities(model, base, seed, seeds), qualities(model, best, seed, seeds),
        {name: qualities(model, s, seed, 2) for name, s in ablations.items()}, best, (counts[0], counts[1]),
    )  # fmt: skip


def qualities(model: Denoiser, solver: Solver, seed: int, seeds: int) -> list[Quality]:
    asked = digits_conditions()
    made = (sample(model, solver, len(asked), asked, seed=1_000 * seed + i).x for i in range(seeds))
    return [digits_quality(x) for x in made]


def _mean(found: Sequence[Quality], figure: str = "frechet") -> float:
    return float(np.mean([getattr(q, figure) for q in found]))


def quotient(ours: Sequence[Quality], theirs: Sequence[Quality], figure: str) -> Interval:
    """Mean over mean of a figure, with a t interval of the paired differences, counting as many as half the pairs."""
    a, b = (np.array([getattr(q, figure) for q in found]) for found in (ours, theirs))
    value, n = float(a.mean() / b.mean()), len(a) // 2
    if n < 2:
        return Interval(value, float("nan"), float("nan"))
    gaps = (a - value * b).reshape(2, n).mean(0)  # a seed's two counts of steps are one item
    half = T95.get(n, 2.2) * float(gaps.std(ddof=1)) / np.sqrt(n) / float(b.mean())
    return Interval(value, value - half, value + half)


def window_zero() -> Check:
    """Every base on a mixture and on the digits, in every form."""
    apart = 0
    models: list[tuple[Any, Any]] = [(skewed(VP()), None), (digits("epsilon"), 3)]
    for (model, condition), make, form in product(models, BASES.values(), ("state", "network", "target")):
        base = make(6)
        wrapped = TimeShiftSampler(base, 0.0, 0.0, 0.1, form)
        apart += not sample(model, base, 20, condition).x.equal(sample(model, wrapped, 20, condition).x)
    return Check("window 0: sets of samples that are not the base's to the bit, of 18", apart, "==", 0)


def tracking(seed: int) -> Iterator[Check]:
    """Gaussian data of variance 0.05 in 16,384 dimensions, between t = 0.5 and 0.2, where the variance tells the time;
    the noised variance is off by up to a tenth."""
    schedule, data, rows, d = VP(), 0.05, 200, 16_384
    sampler = TimeShiftSampler(DDIM(10), window=0.2, cutoff=0.0, data=data)
    grid, rng = sampler.grid(schedule), np.random.default_rng(seed)
    index = rng.integers(5, 9, rows)
    alpha, sigma = schedule.alpha(grid[index]), schedule.sigma(grid[index])
    true = (sigma**2 + data * alpha**2) * rng.uniform(0.9, 1.1, rows)
    wanted = schedule.when(-np.log(np.maximum(1 - true, 1e-12) / (1 - data)))
    inside = np.abs(wanted - grid[index]) < 0.05  # half-way to the next time of the grid the search ends
    x = torch.from_numpy(rng.standard_normal((rows, d)) * np.sqrt(true)[:, None])
    moved = (sampler.shown(x, index, grid, schedule) - grid[index])[inside]
    should = (wanted - grid[index])[inside]
    clause = f"Gaussian data, {inside.sum()} states: correlation of chosen with matching shift"
    yield Check(clause, float(np.corrcoef(moved, should)[0, 1]), ">=", 0.9)
    yield Check("Gaussian data: mean distance of chosen from matching time, in windows",
                float(np.abs(moved - should).mean() / 0.2), "<=", 0.05)  # fmt: skip


def overhead(model: Denoiser, sampler: TimeShiftSampler, rounds: int = 9) -> Check:
    """Processor time of 500 digits with the wrapper over without, medians of alternating runs."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    for wrapped in (True, False) * rounds:
        began = time.process_time()
        sample(model, sampler if wrapped else sampler.base, 500, 3)
        spent[wrapped].append(time.process_time() - began)
    ratio = float(np.median(spent[True]) / np.median(spent[False]))
    return Check("digits, 500 rows: processor time with the wrapper over without", ratio, "<=", 1.05)


def notes(found: dict[tuple[str, int], Found], data: float) -> str:
    """Every figure, and what was tuned."""
    head = ["base, steps", "evaluations", "sampler", "Frechet", "energy", "SW2", "MMD x1000", "recall"]
    rows: list[list[object]] = []
    for (name, steps), one in found.items():
        s = one.sampler
        lines = {"plain": one.base, f"shifted: window {s.window}, cutoff {s.cutoff}, {s.form}": one.shifted}
        for line, q in (lines | one.ablations).items():
            figures = [_mean(q, f) * (1000 if f == "mmd" else 1) for f in ("frechet", "energy", "sw2", "mmd", "recall")]
            rows.append([f"{name}, {steps}", one.evaluations[0] // 10, line, *figures])
    return f"The data's variance a pixel, within an image: {data:.3f}.\n\n{table(head, rows)}"
