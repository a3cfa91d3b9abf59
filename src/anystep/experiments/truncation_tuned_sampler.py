"""Row 185: grids chosen by truncation errors, on mixtures whose errors are known and on digits at three guidances.

The choice is made once, by a pilot without guidance on noise of its own, and kept for guidance 1, 3 and 7. What a
choice made anew at each guidance gives stands in the notes.

Stated time: two minutes on one quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from anystep import keys as lineage
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.diffusion import VE, VP, Denoiser, DiffusionProcess, EarlyStop, Flow, Spacing, Times, sample
from anystep.diffusion.evaluate import Quality, digits_conditions, digits_quality
from anystep.diffusion.guidance import ClassifierFree
from anystep.diffusion.models import digits, ring, skewed
from anystep.diffusion.solvers import DDIM, DPMpp2M, PredictorCorrector, Solver
from anystep.diffusion.solvers.solver import Here, Level
from anystep.diffusion.truncation_tuned import local_errors, pilot, truncation_tuned_sampler
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 185
SCALES = (1.0, 3.0, 7.0)
FIGURES = ("frechet", "energy", "sw2", "mmd")


def run(seed: int = 0, progress: Callable[[str], None] = print, seeds: int = 4, randoms: int = 6) -> Result:
    """Check every clause of the row. seeds: sets of 500 digits. randoms: random schedules beside the tuned one."""
    began = time.perf_counter()
    checks = [correlation(order, seed) for order in (1, 2)]
    progress("; ".join(str(c) for c in checks))
    model = digits()
    tuned = tuned_at(model, 1.0, seed)
    progress("; ".join(f"{n} steps: {s}" for n, s in tuned.items()))
    found: dict[tuple[float, str], list[Quality]] = {}
    for scale in SCALES:
        guided = ClassifierFree(model, scale)
        own = {f"tuned at this guidance, {n}": s for n, s in tuned_at(model, scale, seed).items() if scale != 1}
        ablated = ablations(tuned) if scale == 1 else {}
        for name, solver in (methods(tuned) | own | ablated).items():
            found[scale, name] = qualities(guided, solver, seed, seeds)
            progress(f"guidance {scale:g}, {name}: Frechet {mean(found[scale, name], 'frechet'):.3f}")
    chance = [qualities(ClassifierFree(model, 1.0), s, seed, 2) for s in random_schedules(randoms, seed)]
    checks += [*reaches(found), *gains(found), *against_chance(found, chance)]
    told = f"{notes(found)}\n\nTuned once, without guidance: {'; '.join(repr(s) for s in tuned.values())}."
    return Result("truncation_tuned_sampler", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def tuned_at(model: Denoiser, scale: float, seed: int) -> dict[int, Solver]:
    """By steps: what the tuner makes of the model at one guidance."""
    guided = ClassifierFree(model, scale)
    return {n: truncation_tuned_sampler(guided, n, range(10), seed=10_000 + seed) for n in (5, 8)}


def methods(tuned: dict[int, Solver]) -> dict[str, Solver]:
    """By name: the tuned ones, and default DPM++ 2M at three counts."""
    return {f"tuned, {n}": s for n, s in tuned.items()} | {f"DPM++ 2M, {n}": DPMpp2M(n) for n in (5, 8, 20)}


def ablations(tuned: dict[int, Solver]) -> dict[str, Solver]:
    """The tuned solver without its grid, and the grid without its solver."""
    ablated: dict[str, Solver] = {}
    for n, solver in tuned.items():
        ablated[f"tuned solver, even grid, {n}"] = _same(solver, EarlyStop(0.002, 1.0))
        ablated[f"DPM++ 2M on the tuned grid, {n}"] = DPMpp2M(n, solver.spacing)
    return ablated


def _same(solver: Solver, spacing: Spacing) -> Solver:
    """The same solver on another grid."""
    kept: dict[str, Any] = {f.name: getattr(solver, f.name) for f in fields(solver) if f.name != "spacing"}
    return type(solver)(**kept, spacing=spacing)


def random_schedules(count: int, seed: int) -> Iterator[Solver]:
    """DPM++ 2M and the predictor-corrector in turn, 8 steps at random times."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        times = Times((1.0, *np.sort(rng.uniform(0, 1, 7))[::-1].tolist(), 0.0))
        yield PredictorCorrector(8, times, order=2) if i % 2 else DPMpp2M(8, times)


def qualities(model: Denoiser, solver: Solver, seed: int, seeds: int) -> list[Quality]:
    asked = digits_conditions()
    made = (sample(model, solver, len(asked), asked, seed=1_000 * seed + i).x for i in range(seeds))
    return [digits_quality(x) for x in made]


def mean(found: Sequence[Quality], figure: str) -> float:
    return float(np.mean([getattr(q, figure) for q in found]))


def quotient(ours: Sequence[Quality], theirs: Sequence[Quality], figure: str) -> Interval:
    """Mean over mean of a figure, with the t interval of the seeds' paired differences over their mean."""
    a, b = (np.array([getattr(q, figure) for q in found]) for found in (ours, theirs))
    value, n = float(a.mean() / b.mean()), len(a)
    if n < 2:
        return Interval(value, float("nan"), float("nan"))
    half = float(student.ppf(0.975, n - 1)) * float((a - value * b).std(ddof=1)) / np.sqrt(n)
    return Interval(value, value - half / float(b.mean()), value + half / float(b.mean()))


def reaches(found: dict[tuple[float, str], list[Quality]]) -> Iterator[Check]:
    """What few tuned steps reach without stronger guidance."""
    eight, five = found[1.0, "tuned, 8"], found[1.0, "tuned, 5"]
    for figure in FIGURES:
        twenty = quotient(eight, found[1.0, "DPM++ 2M, 20"], figure)
        if figure == "frechet":
            yield held(f"digits: {figure} of 8 tuned steps over DPM++ 2M's of 20", twenty, "<=", 1.02)
        less = quotient(five, found[1.0, "DPM++ 2M, 5"], figure)
        yield held(f"digits: {figure} of 5 tuned steps over DPM++ 2M's of 5", less, "<", 1.0)
        more = quotient(five, found[1.0, "DPM++ 2M, 8"], figure)
        yield held(f"digits: {figure} of 5 tuned steps over DPM++ 2M's of 8", more, "<", 1.0)


def gains(found: dict[tuple[float, str], list[Quality]]) -> Iterator[Check]:
    """The tuned sampler against the default of as many steps, at every guidance."""
    for scale in SCALES[1:]:
        for n in (5, 8):
            figure = quotient(found[scale, f"tuned, {n}"], found[scale, f"DPM++ 2M, {n}"], "frechet")
            yield held(f"guidance {scale:g}: frechet of {n} tuned steps over DPM++ 2M's of {n}", figure, "<", 1.0)
    figure = quotient(found[1.0, "tuned, 8"], found[1.0, "DPM++ 2M, 8"], "frechet")
    yield held("guidance 1: frechet of 8 tuned steps over DPM++ 2M's of 8", figure, "<", 1.0)


def against_chance(
    found: dict[tuple[float, str], list[Quality]], chance: Sequence[Sequence[Quality]]
) -> Iterator[Check]:
    """Random schedules against DPM++ 2M's 20 steps on the same noise, with an interval over schedules."""
    twenty = found[1.0, "DPM++ 2M, 20"]
    ratios = np.array([mean(one, "frechet") / mean(twenty[: len(one)], "frechet") for one in chance])
    clause = f"digits: frechet of {len(ratios)} random schedules of 8 steps over DPM++ 2M's of 20"
    yield held(clause, bootstrap_mean(ratios.tolist()), ">", 1.02)


def correlation(order: int, seed: int) -> Check:
    """Predicted and measured step errors, over mixtures, schedules and grids of 6 to 20 steps."""
    pairs = []
    for schedule in (Flow(), VP(), VE()):
        for model in (ring(schedule=schedule), skewed(schedule)):
            for steps, spacing in ((6, EarlyStop(0.1, 1.2)), (10, EarlyStop(0.02, 2.0)), (20, EarlyStop(0.2, 1.0))):
                pairs.append(step_errors(model, spacing, steps, order, 64, seed))
    predicted, measured = (np.concatenate(side) for side in zip(*pairs, strict=True))
    name = {1: "DDIM", 2: "DPM++ 2M"}[order]
    return Check(
        f"mixtures: correlation of predicted and measured local errors of {name}, {len(measured)} steps",
        float(np.corrcoef(predicted, measured)[0, 1]), ">=", 0.9,
    )  # fmt: skip


def step_errors(
    model: Denoiser, spacing: Spacing, steps: int, order: int, rows: int, seed: int = 0
) -> tuple[Floats, Floats]:
    """(steps - 1,) root mean square error of each step in x / alpha: predicted by a pilot, and measured by letting the
    solver take it from exact points, with the exact past, on noise that the pilot did not have."""
    solver: Solver = (DDIM if order == 1 else DPMpp2M)(steps, spacing)
    grid, schedule = solver.grid(model.schedule), model.schedule
    predicted = local_errors(pilot(model, rows=rows, seed=seed), grid, order)[:-1]
    fine = np.concatenate([np.linspace(a, b, 24, endpoint=False) for a, b in zip(grid[:-2], grid[1:-1], strict=True)])
    whole = Times((*fine.tolist(), float(grid[-2]), 0.0))
    process = DiffusionProcess(model, PredictorCorrector(len(fine) + 1, whole))
    keys = lineage.roots(seed + 1, (), np.arange(rows))
    states, exact = process.predicted(process.noise(keys, np.full(rows, -1))), []
    for i in range(len(fine) + 1):
        if i % 24 == 0:
            exact.append(states)
        states = process.advance(states, keys).states
    measured = []
    for i in range(steps - 1):
        levels = [Level.at(np.full(rows, grid[max(k, 0)]), schedule, exact[i].x) for k in (i - 1, i, i + 1)]
        past = exact[max(i - 1, 0)].clean[:, None]
        here = Here(
            exact[i].x, exact[i].clean, levels[1], levels[2], np.full(rows, i), past,
            _levels(levels), _none, _none,
        )  # fmt: skip
        gap = solver.step(here).x - exact[i + 1].x
        measured.append(float(gap.pow(2).mean().sqrt()) / float(schedule.alpha(grid[i + 1])))
    return predicted.pow(2).flatten(1).mean(1).sqrt().numpy(), np.array(measured)


def _levels(levels: Sequence[Level]) -> Callable[[int], Level]:
    return lambda offset: levels[offset + 1]


def _none(*rest: Any) -> torch.Tensor:
    raise AssertionError("a plain step asks for neither a model nor noise")


def notes(found: dict[tuple[float, str], list[Quality]]) -> str:
    """Every figure of every sampler at every guidance."""
    head = ["guidance", "sampler, steps", "Frechet", "energy", "SW2", "MMD x1000", "recall"]
    rows = [
        [f"{scale:g}", name, *(mean(q, f) * (1000 if f == "mmd" else 1) for f in (*FIGURES, "recall"))]
        for (scale, name), q in found.items()
    ]
    seeds = len(next(iter(found.values())))
    return f"Means over {seeds} sets of 500 digits of the held-out ones' classes.\n\n{table(head, rows)}"
