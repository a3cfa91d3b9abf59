"""Steering a diffusion towards a reward, all methods for the same rows of the network, against the exact tilted law.

    python benchmarks/steering.py

The model is a ring of eight Gaussians in closed form, the reward r(x) = c . x, the target p(x) exp(r(x)), a mixture
again. Each run of a method may spend what K plain samples of 60 ancestral steps cost; its figures are those of the mean
of its runs' laws: the mean reward, with its standard error over runs, and the total variation of the modes' shares. The
process's own law is a little narrower than the model's; the line "own law, tilted" is 20,000 of its samples weighted by
exp(r), and says how far from the exact law a perfect method would come here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep import Run, search
from anystep.diffusion import DiffusionProcess, on_clean, potential_on_clean, sample
from anystep.diffusion.classifier import Classifier
from anystep.diffusion.guidance import ClassifierGuided
from anystep.diffusion.models import ring
from anystep.diffusion.solvers import DDIM
from anystep.experiments._figures import table
from anystep.procedure import Method
from anystep.process import Floats
from anystep.testing import merged
from anystep.testing.oracles.mixture import Mixture

MODEL, SOLVER = ring(), DDIM(60, eta=1.0)
C = torch.tensor([0.9, 0.3], dtype=torch.float64)
TILTED, _ = Mixture(MODEL.weights, MODEL.means, MODEL.covariances).tilted(C.numpy())
EXACT = float(TILTED.mean() @ C.numpy())


def linear(x: Tensor) -> Tensor:
    return (x * C).sum(-1)


class Wish(Classifier):
    """exp(r(x)) in a classifier's place, for gradient guidance through the denoiser: its only class."""

    name, classes = "wish", 1

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.forward(x, t)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return linear(x)[:, None]


@dataclass(frozen=True)
class Line:
    """reward: of each run's law. modes: (8,) their mean shares. paid: rows of the network, in samples."""

    reward: Floats
    modes: Floats
    paid: float

    @property
    def gap(self) -> float:
        return float(np.abs(self.modes - TILTED.weights).sum() / 2)


def measured(method: Method, runs: int, process: DiffusionProcess, alone: bool = False) -> Line:
    """alone: the answer is the run's law, not its population."""
    rewards, shares, paid = [], np.zeros(len(MODEL.means)), 0
    for run in merged(lambda seed: Run(process, method, seed=seed), range(runs)):
        assert run.answer is not None and run.answer.population is not None and run.answer.row is not None
        population = run.answer.population.take([run.answer.row]) if alone else run.answer.population
        x, w = population.states.x, population.weights
        rewards.append(float(w @ linear(x).numpy()))
        shares, paid = shares + modes(x, w), paid + run.spent.evaluations
    return Line(np.array(rewards), shares / shares.sum(), paid / runs / SOLVER.steps)


def modes(x: Tensor, weights: Floats) -> Floats:
    nearest = ((x.numpy()[:, None] - MODEL.means) ** 2).sum(-1).argmin(1)
    return np.bincount(nearest, weights=weights, minlength=len(MODEL.means))


def methods(k: int) -> dict[str, tuple[Method, DiffusionProcess, bool]]:
    """For what k samples cost."""
    plain = DiffusionProcess(MODEL, SOLVER)
    guided = DiffusionProcess(ClassifierGuided(MODEL, Wish(), through="clean"), SOLVER, condition=0)
    reward, steer = on_clean(linear, "c . x", (-99.0, 99.0)), potential_on_clean(linear, "c . x")
    found = {
        "best-of-n": (search.best_of_n(n=k, reward=reward), plain, True),
        "importance resampling at the end": (search.particle_filter(n=k, potential=steer, ess=0.0), plain, False),
        "SMC, weights carried (ess 0.5)": (search.particle_filter(n=k, potential=steer, ess=0.5), plain, False),
        "FK, resampled every step (ess 1)": (search.particle_filter(n=k, potential=steer, ess=1.0), plain, False),
    }
    for branch in (4, 16):
        if k >= branch:
            method = search.soft_value_decoding(reward, branch=branch, n=k // branch)
            found[f"SVDD-PM, {branch} candidates"] = method, plain, False
    if k >= 6:  # a gradient through the denoiser takes six rows a step
        found["gradient guidance"] = search.sample(n=k // 6), guided, False
    return found


def main(scale: float = 1.0) -> None:
    x = sample(MODEL, SOLVER, int(20_000 * scale), seed=1).x
    weights = np.exp(linear(x).numpy())
    own = float(weights @ linear(x).numpy() / weights.sum())
    shares = modes(x, weights / weights.sum())
    gap = float(np.abs(shares - TILTED.weights).sum() / 2)
    rows: list[list[object]] = [["exact", "", "", f"{EXACT:.3f}", 0.0], ["own law, tilted", "", "", f"{own:.3f}", gap]]
    plain = modes(x, np.full(len(x), 1 / len(x)))
    told = f"{linear(x).mean():.3f}"
    rows.append(["own law, untilted", "", "", told, float(np.abs(plain - TILTED.weights).sum() / 2)])
    for k, runs in ((4, 320), (16, 120), (64, 50)):
        for name, (method, process, alone) in methods(k).items():
            line = measured(method, max(8, int(scale * runs * (4 if alone else 1))), process, alone)
            error = line.reward.std() / np.sqrt(len(line.reward))
            rows.append([name, k, f"{line.paid:.1f}", f"{line.reward.mean():.3f} +- {error:.3f}", line.gap])
            print(rows[-1], file=sys.stderr, flush=True)
    print(table(["method", "K", "paid, in samples", f"E[r] (exact {EXACT:.3f})", "TV of modes"], rows))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
