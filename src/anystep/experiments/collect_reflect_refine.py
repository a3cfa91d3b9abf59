"""Row 226: collect, reflect and refine on DigitFlow. Autoregressive models and zigzag sampling are not built.

Settings were chosen on training digits and other seeds. Stated time: one minute on one quiet core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anystep.diffusion import Denoiser, sample
from anystep.diffusion.guidance import ClassifierFree, CollectReflectRefine, Guided, WeakRecipe, collect, reflect
from anystep.diffusion.guidance.collect_reflect_refine import WeakNet
from anystep.diffusion.models import digits
from anystep.diffusion.solvers import Euler
from anystep.experiments import _guided_digits as seen
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result

ROW = 226
SCALE, STEPS = 2.0, 20
REFINEMENT, EARLY = 2.0, (1.0, np.inf)  # refined while there is more noise than signal, by the weak network after
RECIPE = WeakRecipe()


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    seeds: int = 3,
    collected: int = 600,
    recipe: WeakRecipe = RECIPE,
) -> Result:
    """Check every clause on diffusion. collected: guided samples that the weak network learns from."""
    began, model = time.perf_counter(), digits()
    weak = reflect(collect(model, SCALE, Euler(STEPS), [k % 10 for k in range(collected)], 10_000), model, recipe)
    share = weak.flops() / model.flops()
    progress(f"weak network: {share:.3f} of the model's operations")
    refined = CollectReflectRefine(model, weak, SCALE, REFINEMENT, EARLY)
    fewer = sample(refined, Euler(STEPS), 1, 0).cost.evaluations
    level = math.ceil((fewer + STEPS * share) / 2)  # steps of guidance that cost no less, the weak network's share too
    arms = {
        "guidance": (ClassifierFree(model, SCALE), STEPS),
        "weak alone": (CollectReflectRefine(model, weak, SCALE, 0.0), STEPS),
        "refined": (refined, STEPS),
        "guidance, equal cost": (ClassifierFree(model, SCALE), level),
        "larger guidance, equal cost": (ClassifierFree(model, 1.5 * SCALE), level),
        "smaller guidance, equal cost": (ClassifierFree(model, 1.5), level),
        "no guidance, equal cost": (ClassifierFree(model, 1.0), 2 * level),
    }
    found: dict[str, list[seen.Figures]] = {}
    for name, (guided, steps) in arms.items():
        found[name] = [seen.figures(guided, Euler(steps), s) for s in range(seed, seed + seeds)]
        progress(str(seen.row(name, found[name])))
    checks = [*exact(seed, weak), *clauses(found, share)]
    told = f"Scale {SCALE:g}; the weak network costs {share:.3f} of an evaluation, which is not in the last column.\n\n"
    told += table(seen.HEAD, [seen.row(k, v) for k, v in found.items()])
    return Result("collect_reflect_refine", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def exact(seed: int, weak: WeakNet) -> list[Check]:
    """Refinement 1 is guidance, 0 the weak path."""
    model = digits()
    plain, one, none = (
        sample(guided, Euler(5), 50, 3, seed)
        for guided in (
            ClassifierFree(model, SCALE),
            CollectReflectRefine(model, weak, SCALE, 1.0),
            CollectReflectRefine(model, weak, SCALE, 0.0),
        )
    )
    path = sample(WeakPath(model, weak), Euler(5), 50, 3, seed)
    return [
        Check("refinement 1: numbers that differ from guidance's", float((plain.x != one.x).sum()), "==", 0),
        Check("refinement 0: numbers that differ from the weak path's", float((path.x != none.x).sum()), "==", 0),
        Check("weak network: evaluations a step", none.cost.evaluations / 250, "==", 1),
    ]


class WeakPath(Guided):
    """The model's conditional prediction, and what the weak network makes of it: nothing else."""

    def __init__(self, model: Denoiser, weak: WeakNet) -> None:
        super().__init__(model, "weak-path")
        self.weak = weak

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        ratio = self.model.schedule.ratio(t.numpy())
        level = torch.from_numpy(np.arctan(ratio) / (np.pi / 2)).float()
        answer: Tensor = self.weak(self.model(x, t, condition), level, condition)
        return answer


def clauses(found: dict[str, list[seen.Figures]], share: float) -> list[Check]:
    checks = []
    for figure in ("frechet", "sw2"):
        over = [
            getattr(a, figure) / getattr(b, figure) for a, b in zip(found["weak alone"], found["guidance"], strict=True)
        ]
        checks.append(held(f"weak alone, at half the evaluations: {figure} over guidance's",
                           seen.over_seeds(over), "<=", 1.05))  # fmt: skip
    for other in ("guidance, equal cost", "larger guidance, equal cost", "smaller guidance, equal cost",
                  "no guidance, equal cost"):  # fmt: skip
        gap = seen.apart(found["refined"], found[other], "frechet")
        checks.append(held(f"refined: Frechet minus that of {other}", gap, "<", 0.0))
    gap = seen.apart(found["refined"], found["guidance, equal cost"], "mmd")
    checks.append(held("refined: MMD x1000 minus that of guidance, equal cost", gap, "<", 0.0))
    ours, theirs = found["refined"][0], found["guidance, equal cost"][0]
    cost = ours.evaluations + STEPS * share - theirs.evaluations
    checks.append(Check("refined: evaluations more than guidance's, the weak network's share counted", cost, "<=", 0))
    checks.append(Check("clauses on autoregressive digits and on zigzag sampling that were measured, of 3", 0, "==", 3))
    return checks
