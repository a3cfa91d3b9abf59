"""Row 191: fewer denoising steps for the later patches of a digit, against the same number everywhere.

Stated time: four minutes on one quiet core, and two more the first time, when the patch model is trained (then it is
kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.calibrate.interval import Interval
from anystep.diffusion import PatchProcess, Uniform, sample_patches, step_annealing
from anystep.diffusion.evaluate import digits_conditions, frechet, over, quality, sliced_wasserstein
from anystep.diffusion.models import PatchFlow, digits_classifier, digits_data, patch_digits
from anystep.diffusion.step_annealing import StepAnnealing
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.ledger import Ledger, Limit

ROW = 191
GROUPED = 14  # iterations of the cosine rule: the most with which 50 to 5 halves the head's work
SPACING = Uniform(shift=0.5)
BASE, ANNEALED, EVEN, REVERSED = "constant 50", "annealed 50 to 5", "constant, equal total", "reversed 5 to 50"


@dataclass(frozen=True)
class Arm:
    """One way to spend head steps. images: (seeds, n, 8, 8). head: evaluations an image."""

    images: Tensor
    head: int

    @property
    def pooled(self) -> Tensor:
        return self.images.flatten(0, 1)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: PatchFlow | None = None,
    copies: int = 2,
    seeds: int = 3,
    resamples: int = 300,
    states: int = 200,
) -> Result:
    """Check every clause of the row.

    model: by default the kept `patch_digits()`. copies: images of each held-out digit's class, a seed. resamples: of
    the bootstrap. states: unfinished images whose next patch is drawn sixteen times.
    """
    began = time.perf_counter()
    model = model or patch_digits(say=progress)
    grouped = arms(model, GROUPED, seed, seeds, copies, progress)
    few = max(copies // 2, 1)
    others = {
        f"{GROUPED} iterations, second order": arms(model, GROUPED, seed, seeds, few, progress, order=2),
        "one patch a step": arms(model, None, seed, seeds, few, progress),
    }
    variance, curvature = paths(model, states, seed)
    checks = [
        Check("head evaluations of constant 50 over annealed", grouped[BASE].head / grouped[ANNEALED].head, ">=", 2.0),
        *distances(grouped, resamples, seed),
        falls("variance of the next patch", variance, resamples, seed),
        falls("curvature of its path", curvature, resamples, seed),
    ]
    for check in checks:
        progress(str(check))
    notes = told({f"{GROUPED} iterations": grouped} | others, variance, curvature, seeds, 500 * copies)
    return Result("step_annealing", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def plans(model: PatchFlow, iterations: int | None) -> dict[str, StepAnnealing | int]:
    """The arms. The constant one has the least number of steps that is no cheaper than annealing."""
    annealed = step_annealing(50, 5)
    total = PatchProcess(model, annealed, iterations).head_evaluations()
    even = -(-total // model.shape.patches)
    return {BASE: 50, ANNEALED: annealed, EVEN: even, REVERSED: step_annealing(5, 50)}


def arms(
    model: PatchFlow,
    iterations: int | None,
    seed: int,
    seeds: int,
    copies: int,
    progress: Callable[[str], None],
    order: Literal[1, 2] = 1,
) -> dict[str, Arm]:
    """Images of every arm, from the same noise and in the same order of patches."""
    found, conditions = {}, digits_conditions() * copies
    for name, plan in plans(model, iterations).items():
        process = PatchProcess(model, plan, iterations, spacing=SPACING, order=order)
        images = [sample_patches(model, process, conditions, seed * 1_000 + s)[0] for s in range(seeds)]
        found[name] = Arm(torch.stack(images), process.head_evaluations())
        progress(f"{process.horizon} iterations, {name}: {found[name].head} head evaluations an image")
    return found


def distances(found: dict[str, Arm], resamples: int, seed: int) -> list[Check]:
    """The clauses on quality, on paired images: the same rows of every arm are resampled."""
    features = digits_classifier("a").features
    held_out = digits_data("held-out").images
    real, seen = features(held_out), {name: features(arm.pooled) for name, arm in found.items()}
    rows = bootstrap(len(seen[BASE]), resamples, seed)

    def gap(one: str, other: str) -> Interval:
        return spread([frechet(seen[one][at], real) - frechet(seen[other][at], real) for at in rows])

    def share(one: str, other: str) -> Interval:
        return spread([frechet(seen[one][at], real) / frechet(seen[other][at], real) for at in rows])

    def sliced() -> Interval:
        few = rows[: 3 + resamples // 5]
        ours, theirs = (
            [sliced_wasserstein(found[name].pooled[at], held_out, seed=seed) for at in few] for name in (ANNEALED, BASE)
        )
        return spread([a / b for a, b in zip(ours, theirs, strict=True)])

    return [
        held("Frechet distance of annealed over constant 50's", share(ANNEALED, BASE), "<=", 1.03),
        held("sliced Wasserstein distance of annealed over constant 50's", sliced(), "<=", 1.03),
        held("Frechet distance of annealed minus that of a constant of equal total", gap(ANNEALED, EVEN), "<", 0.0),
        held("Frechet distance of reversed minus annealed", gap(REVERSED, ANNEALED), ">", 0.0),
    ]


def bootstrap(n: int, resamples: int, seed: int) -> list[NDArray[np.int64]]:
    """All rows as they are, then resampled ones."""
    rng = np.random.default_rng(seed)
    return [np.arange(n), *(rng.integers(0, n, n) for _ in range(resamples))]


def spread(values: list[float]) -> Interval:
    """The first value, and the interval of the others around it; their own mean is off, since a distance between sets
    grows with repeated rows."""
    low, high = values[0] + np.quantile(np.array(values[1:]) - np.mean(values[1:]), [0.025, 0.975])
    return Interval(values[0], min(float(low), values[0]), max(float(high), values[0]))


@torch.no_grad()
def paths(model: PatchFlow, states: int, seed: int, each: int = 16) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(patches, states): the variance of the next patch, and how far its path is from straight, by how many are there.

    Curvature is the mean square of the velocity's difference from the straight one that joins both ends.
    """
    process, patches = PatchProcess(model, 50), model.shape.patches
    keys = lineage.roots(seed, (1,), np.arange(states))
    now = process.empty(keys, np.asarray(digits_conditions() * (1 + states // 500))[:states])
    variances, curvatures = np.zeros((patches, states)), np.zeros((patches, states))
    for k in range(patches):
        told = process.told(now)[:, np.arange(states), now.order[:, k]].repeat_interleave(each, 1)
        own = lineage.children(np.repeat(keys, each), 1, np.tile(np.arange(each), states))
        noise = torch.from_numpy(lineage.normals(own, k, model.shape.pixels)).float()
        x, velocities = noise, []
        for i in range(50):
            velocities.append(process.velocity(x, torch.full((len(x),), 1 - i / 50), told))
            x = x - velocities[-1] / 50
        drawn = x.reshape(states, each, -1)
        bent = sum(((v - (noise - x)) ** 2).mean(1) for v in velocities) / 50
        variances[k], curvatures[k] = drawn.var(1).mean(-1).numpy(), torch.as_tensor(bent).reshape(states, each).mean(1)
        now = process.step(now, keys, Limit(Ledger(), model.name), "step").states
    return variances, curvatures


def falls(what: str, figures: NDArray[np.float64], resamples: int, seed: int) -> Check:
    """The rank correlation of a figure, averaged over states, with how many patches are there."""

    def correlation(at: NDArray[np.int64]) -> float:
        ranks = figures[:, at].mean(1).argsort().argsort()
        return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])

    values = [correlation(at) for at in bootstrap(figures.shape[1], resamples, seed)]
    return held(f"{what}: rank correlation with the number of patches there", spread(values), "<", 0.0)


def told(
    every: dict[str, dict[str, Arm]],
    variance: NDArray[np.float64],
    curvature: NDArray[np.float64],
    seeds: int,
    images: int,
) -> str:
    """Every arm's figures, and the measured curves."""
    features, real = digits_classifier("a").features, digits_data("held-out").images
    rows = []
    for label, found in every.items():
        for name, arm in found.items():
            whole = over([quality(one, real, features) for one in arm.images])
            q, d = whole.mean, whole.deviation
            figures = [f"{a:.4f} ({b:.4f})" for a, b in ((q.frechet, d.frechet), (q.sw2, d.sw2), (q.energy, d.energy))]
            rows.append([label, name, arm.head, *figures, float(q.recall)])
    head = ["made in", "head steps", "head evaluations", "Frechet (s.d. of seeds)", "SW2", "energy", "recall"]
    curves = [[k, float(v), float(c)] for k, (v, c) in enumerate(zip(variance.mean(1), curvature.mean(1), strict=True))]
    return (
        "Patch-autoregressive 8x8 digits, sixteen 2x2 patches in random order, flow head under Euler (second order "
        f"where it says so) on {SPACING}; {images} images a seed, {seeds} seeds, half of that from the fifth line on, "
        "against the 500 held-out digits; all arms from the same noise. The constant arm of equal total has the least "
        "steps that cost no less than annealing. Head evaluations are of one image, beside which the body is read once "
        f"a step.\n\n{table(head, rows)}\n\n"
        f"{table(['patches there', 'variance of the next', 'curvature of its path'], curves)}"
    )
