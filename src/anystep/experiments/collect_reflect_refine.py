"""Row 226: collect, reflect and refine on DigitFlow and on patch-autoregressive digits. Zigzag sampling is not built.

Settings were chosen on training digits and other seeds. Stated time: one minute and a half on one quiet core, and some
more the first time, when the patch model is trained (then it is kept).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anystep.diffusion import Denoiser, PatchProcess, ReflectedPatches, Uniform, sample, sample_patches
from anystep.diffusion.evaluate import digits_conditions
from anystep.diffusion.guidance import ClassifierFree, CollectReflectRefine, Guided, WeakRecipe, collect, reflect
from anystep.diffusion.guidance.collect_reflect_refine import WeakNet
from anystep.diffusion.models import PatchFlow, digits, patch_digits
from anystep.diffusion.reflected_patches import WeakHead, collect_patches, reflect_patches
from anystep.diffusion.solvers import Euler
from anystep.experiments import _guided_digits as seen
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result

ROW = 226
SCALE, STEPS = 2.0, 20
REFINEMENT, EARLY = 2.0, (1.0, np.inf)  # refined while there is more noise than signal, by the weak network after
RECIPE = WeakRecipe()
SINCE = 0.5  # the time of a patch's flow from which on there is more noise than signal
SPACING = Uniform(shift=0.5)  # of a patch's head steps
EQUAL = ("guidance, equal cost", "larger guidance, equal cost", "smaller guidance, equal cost",
         "no guidance, equal cost")  # fmt: skip


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    seeds: int = 3,
    collected: int = 600,
    recipe: WeakRecipe = RECIPE,
    patch_model: PatchFlow | None = None,
) -> Result:
    """Check every clause but zigzag's. collected: guided samples that the weak network learns from, half as many images
    for the weak head. patch_model: by default the kept `patch_digits()`."""
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
    autoregressive = patch_model or patch_digits(say=progress)
    patchwise, head, head_share = patches(autoregressive, seed, seeds, collected // 2, recipe)
    for name, figures in patchwise.items():
        progress(f"patches: {seen.row(name, figures)}")
    checks += [*exact_patches(autoregressive, head, seed), *patch_clauses(patchwise, head_share)]
    checks.append(Check("clauses on zigzag sampling that were measured, of 1", 0, "==", 1))
    told = f"Scale {SCALE:g}; the weak network costs {share:.3f} of an evaluation, which is not in the last column.\n\n"
    told += table(seen.HEAD, [seen.row(k, v) for k, v in found.items()])
    told += (
        f"\n\nPatch by patch, the head's velocity; its weak one costs {head_share:.3f} of a head evaluation, which is "
        f"not in the last column.\n\n{table(seen.HEAD, [seen.row(k, v) for k, v in patchwise.items()])}"
    )
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
    for other in EQUAL:
        gap = seen.apart(found["refined"], found[other], "frechet")
        checks.append(held(f"refined: Frechet minus that of {other}", gap, "<", 0.0))
    gap = seen.apart(found["refined"], found["guidance, equal cost"], "mmd")
    checks.append(held("refined: MMD x1000 minus that of guidance, equal cost", gap, "<", 0.0))
    ours, theirs = found["refined"][0], found["guidance, equal cost"][0]
    cost = ours.evaluations + STEPS * share - theirs.evaluations
    checks.append(Check("refined: evaluations more than guidance's, the weak network's share counted", cost, "<=", 0))
    return checks


def patches(
    model: PatchFlow, seed: int, seeds: int, collected: int, recipe: WeakRecipe
) -> tuple[dict[str, list[seen.Figures]], WeakHead, float]:
    """Every arm's figures on patch-autoregressive digits, the weak head, and its share of a head evaluation."""
    kept = collect_patches(model, SCALE, [k % 10 for k in range(collected)], 10_000, steps=STEPS, spacing=SPACING)
    weak, each = reflect_patches(kept, model, recipe), model.shape.patches
    share = weak.flops() / model.head_flops
    refined = ReflectedPatches(model, weak, SCALE, REFINEMENT, SINCE, steps=STEPS, spacing=SPACING)
    whole = refined.head_evaluations() + 2 * each + each * STEPS * share
    level, alone = math.ceil((whole / each - 2) / 2), math.ceil(whole / each - 1)  # head steps that cost no less
    arms = {
        "guidance": PatchProcess(model, STEPS, scale=SCALE, spacing=SPACING),
        "weak alone": ReflectedPatches(model, weak, SCALE, 0.0, steps=STEPS, spacing=SPACING),
        "refined": refined,
        "guidance, equal cost": PatchProcess(model, level, scale=SCALE, spacing=SPACING),
        "larger guidance, equal cost": PatchProcess(model, level, scale=1.5 * SCALE, spacing=SPACING),
        "smaller guidance, equal cost": PatchProcess(model, level, scale=1.5, spacing=SPACING),
        "no guidance, equal cost": PatchProcess(model, alone, spacing=SPACING),
    }
    found: dict[str, list[seen.Figures]] = {name: [] for name in arms}
    for name, process in arms.items():
        for s in range(seed, seed + seeds):
            images, cost = sample_patches(model, process, digits_conditions(), s)
            found[name].append(seen.of(images, cost.evaluations, cost.flops))
    return found, weak, share


def exact_patches(model: PatchFlow, weak: WeakHead, seed: int) -> list[Check]:
    """Refinement 1 is guidance, 0 the weak path, patch by patch too."""
    (plain, _), (one, _), (none, cost), (path, _) = (
        sample_patches(model, process, [3] * 50, seed)
        for process in (
            PatchProcess(model, 5, scale=SCALE, spacing=SPACING),
            ReflectedPatches(model, weak, SCALE, 1.0, steps=5, spacing=SPACING),
            ReflectedPatches(model, weak, SCALE, 0.0, steps=5, spacing=SPACING),
            WeakPatches(model, weak),
        )
    )
    asked = cost.evaluations / (50 * model.shape.patches * 6)  # five of the head and one of the body for each patch
    return [
        Check("patches, refinement 1: numbers that differ from guidance's", float((plain != one).sum()), "==", 0),
        Check("patches, refinement 0: numbers that differ from the weak path's", float((path != none).sum()), "==", 0),
        Check("patches, weak head: evaluations a step", asked, "==", 1),
    ]


class WeakPatches(PatchProcess):
    """The head's velocity given the class, and what the weak head makes of it: nothing else."""

    def __init__(self, model: PatchFlow, weak: WeakHead) -> None:
        super().__init__(model, 5, spacing=SPACING)
        self.weak = weak

    def velocity(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        answer: Tensor = self.weak(super().velocity(x, t, told), x, t, told[0])
        return answer


def patch_clauses(found: dict[str, list[seen.Figures]], share: float) -> list[Check]:
    checks = []
    weak, strong = found["weak alone"], found["guidance"]
    for figure in ("frechet", "sw2"):
        over = [getattr(a, figure) / getattr(b, figure) for a, b in zip(weak, strong, strict=True)]
        checks.append(held(f"patches, weak alone: {figure} over guidance's", seen.over_seeds(over), "<=", 1.05))
    half = weak[0].evaluations / strong[0].evaluations
    checks.append(Check("patches, weak alone: evaluations over guidance's", half, "==", 0.5))
    for other in EQUAL:
        gap = seen.apart(found["refined"], found[other], "frechet")
        checks.append(held(f"patches, refined: Frechet minus that of {other}", gap, "<", 0.0))
    gap = seen.apart(found["refined"], found["guidance, equal cost"], "mmd")
    checks.append(held("patches, refined: MMD x1000 minus that of guidance, equal cost", gap, "<", 0.0))
    return [*checks, *patch_costs(found, share)]


def patch_costs(found: dict[str, list[seen.Figures]], share: float) -> list[Check]:
    ours, theirs = found["refined"][0], found["guidance, equal cost"][0]
    each = (found["weak alone"][0].evaluations / (STEPS + 1)) * STEPS * share
    return [
        Check("patches, refined: evaluations more than guidance's, the weak head's share counted",
              ours.evaluations + each - theirs.evaluations, "<=", 0),
        Check("patches, refined: operations over guidance's, the body's and the weak head's counted",
              ours.flops / theirs.flops, "<=", 1),
    ]  # fmt: skip
