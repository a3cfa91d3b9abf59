"""Row 143: masked motion tokens against autoregressive decoding and a motion diffusion model, and edits by masks.

Stated time: two minutes on one quiet core, and four more the first time, when the tokenizers, both transformers and
the diffusion model are trained (then they are kept).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.calibrate.interval import bootstrap_mean
from anystep.diffusion import sample as denoised
from anystep.diffusion.evaluate import energy_distance, frechet
from anystep.diffusion.masked import Confidence, LeftToRight, Linear, MaskedProcess, Random, Spread, sample
from anystep.diffusion.masked.motion import (
    ARMS,
    COLUMNS,
    LEGS,
    LENGTH,
    PARTS,
    PATCH,
    MaskedMotionModel,
    MotionRecipe,
    masked_motion_model,
    smoothed,
)
from anystep.diffusion.masked.motions import FRAMES, JOINTS, LABELS, UPPER, Floats, Motions, acceleration, motions
from anystep.diffusion.masked.tokenizer import Tokenizer
from anystep.diffusion.models.digit_data import Images
from anystep.diffusion.models.digit_flow import DigitRecipe, trained
from anystep.diffusion.models.digit_net import Shape
from anystep.diffusion.solvers import DPMpp2M, Euler, Heun, Solver
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments.check import Check, Result

Labels = NDArray[np.int64]

ROW = 143
PASSES = 8
SIDE = math.isqrt(FRAMES * JOINTS)  # a motion's numbers, as the square that the diffusion model takes
FIRST, LAST = 5, 11  # columns that in-betweening draws anew
SEAM = 2


@dataclass(frozen=True)
class Rival:
    """The diffusion model: its training, on the same motions. It predicts the clean motion, since noise of 576 numbers
    does not pass through its width."""

    recipe: DigitRecipe = field(
        default_factory=lambda: DigitRecipe("clean", shape=Shape(SIDE, classes=len(LABELS)), updates=5_000, batch=128)
    )


@dataclass(frozen=True)
class Figures:
    """What samples of one seed came to. right: (n,) whether the wanted label is recognised. frechet: distance in the
    classifier's features. energy: in the angles themselves."""

    right: Floats
    frechet: float
    energy: float
    seconds: float


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    recipe: MotionRecipe | None = None,
    rival: Rival | None = None,
    each: int = 50,
    seeds: int = 3,
    edited: int = 240,
    learn: int = 600,
    studied: int = 4_000,
) -> Result:
    """Check every clause of the row.

    recipe, rival: of the models. each: motions of each label a seed. seeds: of samples. edited: held-out motions that
    are edited. learn: updates of the classifier that recognises labels. studied: motions that it learns from; fewer of
    others serve as reference.
    """
    began, recipe = time.perf_counter(), recipe or MotionRecipe()
    model = masked_motion_model(recipe, say=progress)
    causal = masked_motion_model(recipe, causal=True, say=progress)
    judge, real = classifier(motions(studied, seed + 9_000), learn), motions(studied // 2, seed + 8_000)
    floor = [
        float((judge.labels(x) == real.labels).mean()) for x in (real.angles, model.angles(model.tokens(real.angles)))
    ]
    labels = np.repeat(np.arange(len(LABELS)), each)

    def measured(x: Floats, took: float) -> Figures:
        mine, true = judge.features(x), judge.features(real.angles)
        right = (judge.labels(x) == labels).astype(np.float64)
        near = energy_distance(*(torch.from_numpy(a).flatten(1) for a in (x, real.angles)))
        return Figures(right, frechet(mine, true), near, took / len(x))

    found: dict[str, list[Figures]] = {}
    passes: dict[str, float] = {}
    some = motions(len(labels), seed + 6_000)
    best = some.angles[np.argsort(some.labels, kind="stable")]
    for name, x in (("real motions", best), ("real, through tokens", model.angles(model.tokens(best)))):
        found[name], passes[name] = [measured(x, 0.0)], 0.0
    for name, process in arms(model, causal).items():
        times = seeds if name in ("8 passes", "autoregressive") else 1
        found[name], passes[name] = decoded(model, process, labels, measured, seed, times)
        progress(f"{name}: right {np.mean([f.right for f in found[name]]):.3f}, {found[name][0].frechet:.3f}")
    theirs, size = diffusion(recipe, rival or Rival(), labels, measured, seed, seeds, progress)
    right = paired(*(np.concatenate([f.right for f in found[name]]) for name in ("8 passes", "autoregressive")))
    checks = [
        held("accuracy of the wanted label, 8 passes minus autoregressive", right, ">=", -0.03),
        Check("autoregressive passes over ours", passes["autoregressive"] / passes["8 passes"], ">=", 4.0),
    ]
    edits, told = editing(model, motions(edited, seed + 7_000), seed)
    made, joined = long(model, real, edited // 4, seed)
    checks += [*edits, *made, *faster(found["8 passes"], theirs)]
    notes = (
        f"{_notes(found, passes)}\n\nLabels recognised in held-out motions {floor[0]:.3f}, through their tokens "
        f"{floor[1]:.3f}. Frechet in the classifier's features, energy in the angles, to {len(real.labels)} others.\n\n"
        f"{told}\n\n{joined}\n\nDiffusion: {size:,} weights, the masked transformer "
        f"{weights(model):,}, over all solvers and steps:\n\n{_solvers(theirs)}"
    )
    return Result("masked_motion", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def arms(model: MaskedMotionModel, causal: MaskedMotionModel) -> dict[str, MaskedProcess]:
    """What is compared, and what is distinctive, one thing at a time."""
    return {
        "8 passes": model.process(steps=PASSES),
        "autoregressive": causal.process(steps=LENGTH, order=LeftToRight(), pace=Linear()),
        "4 passes": model.process(steps=4),
        "16 passes": model.process(steps=16),
        "8, linear pace": model.process(steps=PASSES, pace=Linear()),
        "8, surest only": model.process(steps=PASSES, order=Confidence(noise=0.0)),
        "8, random order": model.process(steps=PASSES, order=Random()),
        "8, spread order": model.process(steps=PASSES, order=Spread((COLUMNS, PARTS))),
    }


def decoded(
    model: MaskedMotionModel,
    process: MaskedProcess,
    labels: Labels,
    measured: Callable[[Floats, float], Figures],
    seed: int,
    times: int,
) -> tuple[list[Figures], float]:
    """Figures of a process's samples by seed, and the evaluations of one sample."""
    found = []
    for i in range(times):
        start = time.perf_counter()
        drawn = sample(process, len(labels), labels.tolist(), seed=1_000 * seed + i)
        x = model.angles(drawn.tokens)
        found.append(measured(x, time.perf_counter() - start))
    return found, drawn.cost.evaluations / len(labels)


def editing(model: MaskedMotionModel, given: Motions, seed: int) -> tuple[list[Check], str]:
    """The clauses on in-betweening and on parts of the body, from real motions that no model saw."""
    tokens, labels = model.tokens(given.angles), given.labels.tolist()
    filled = model.between(tokens, FIRST, LAST, labels=labels, steps=PASSES, seed=seed)
    before, after = (t.reshape(-1, COLUMNS, PARTS) for t in (tokens, filled))
    outside = [i for i in range(COLUMNS) if not FIRST <= i < LAST]
    same = float((before[:, outside] == after[:, outside]).float().mean())
    coded, angles = model.angles(tokens), model.angles(filled)
    low, high = (FIRST - Tokenizer.AROUND) * PATCH - 1, (LAST + Tokenizer.AROUND) * PATCH + 1  # 1 for the smoothing
    far = [i for i in range(FRAMES) if not low <= i < high]
    moved = float(np.abs(coded[:, far] - angles[:, far]).max())
    borders = (FIRST * PATCH, LAST * PATCH)
    natural = at(given.angles, borders)
    smooth = ratio(at(angles, borders), natural)
    other = np.roll(given.labels, 1).tolist()
    waved = model.part(tokens, ARMS, other, steps=PASSES, seed=seed)
    legs = waved.reshape(-1, COLUMNS, PARTS)
    kept = float((before[..., LEGS] == legs[..., LEGS]).float().mean())
    changed = float((before[..., ARMS] != legs[..., ARMS]).float().mean())
    shift = float(np.abs(model.angles(waved)[..., len(UPPER) :] - coded[..., len(UPPER) :]).max())
    checks = [
        Check("in-betweening: share of unmasked tokens that are unchanged", same, "==", 1.0),
        Check("in-betweening: change of decoded frames beyond the decoder's field, radians", moved, "<=", 1e-5),
        held("in-betweening: joint acceleration at seams over the real motions'", smooth, "<=", 1.5),
        Check("arms edited: share of leg tokens that are unchanged", kept, "==", 1.0),
        Check("arms edited: change of decoded leg angles, radians", shift, "<=", 1e-5),
    ]
    alike = at(smoothed(given.angles), borders)
    alone = model.between(tokens, FIRST, LAST, steps=PASSES, seed=seed)
    lines = [
        ["through tokens, nothing filled", str(ratio(at(coded, borders), natural))],
        ["filled, label told", str(smooth)],
        ["filled, label told, over real motions smoothed alike", str(ratio(at(angles, borders), alike))],
        ["through tokens, no smoothing", str(ratio(at(model.angles(tokens, smooth=False), borders), natural))],
        ["filled, label told, no smoothing", str(ratio(at(model.angles(filled, smooth=False), borders), natural))],
        ["filled, no label told", str(ratio(at(model.angles(alone), borders), natural))],
    ]
    told = table([f"in-betweening of {len(labels)}, columns {FIRST} to {LAST - 1}", "acceleration at seams"], lines)
    return checks, f"{told}\n\nArms edited to another label's: {changed:.3f} of their tokens change."


def long(model: MaskedMotionModel, real: Motions, n: int, seed: int, parts: int = 4) -> tuple[list[Check], str]:
    """The clause on long sequences: parts of other labels each, with the seams between them filled."""
    labels = (np.arange(n)[:, None] + 3 * np.arange(parts)) % len(LABELS)
    process = model.process(steps=PASSES)
    made = [sample(process, n, labels[:, i].tolist(), seed=10_000 * (seed + 1) + i).tokens for i in range(parts)]
    usual = np.array([acceleration(real.angles[real.labels == i]).mean() for i in range(len(LABELS))])
    natural = usual[labels].mean(1)
    lines: list[list[object]] = []
    for seam, steps in ((0, 1), (1, 1), (SEAM, 1), (SEAM, 4), (4, 4)):
        tokens = model.long(made, seam, steps, seed)
        quick = acceleration(model.angles(tokens))
        inner = [  # from border to border of what was filled; where nothing was, the frames on both sides of a seam
            i for j in range(1, parts) for i in range((j * COLUMNS - seam) * PATCH - 2, (j * COLUMNS + seam) * PATCH)
        ]
        found = ratio(quick[:, inner].mean(1), natural)
        lines.append([f"{seam} columns each side, {steps} passes", str(found)])
        if (seam, steps) == (SEAM, 1):
            jerky = acceleration(model.angles(tokens, smooth=False))[:, inner].mean(1)
            lines.append(["the same, no smoothing", str(ratio(jerky, natural))])
            plain = torch.cat(made, 1).reshape(n, -1, PARTS)
            outside = [i for i in range(parts * COLUMNS) if SEAM <= i % COLUMNS < COLUMNS - SEAM]
            outside += [*range(SEAM), *range(parts * COLUMNS - SEAM, parts * COLUMNS)]
            same = float((plain[:, outside] == tokens.reshape(n, -1, PARTS)[:, outside]).float().mean())
            checks = [
                Check("long sequences: share of tokens outside the seams that are unchanged", same, "==", 1.0),
                held("long sequences: joint acceleration in filled seams over real motions'", found, "<=", 1.5),
            ]
    return checks, table([f"{n} sequences of {parts} parts", "acceleration in seams"], lines)


def at(angles: Floats, borders: tuple[int, ...]) -> Floats:
    """(n,) mean acceleration of the frames before and after each border."""
    frames = [f for border in borders for f in (border - 2, border - 1)]
    return np.asarray(acceleration(angles)[:, frames].mean(1))


def diffusion(
    recipe: MotionRecipe,
    rival: Rival,
    labels: Labels,
    measured: Callable[[Floats, float], Figures],
    seed: int,
    seeds: int,
    progress: Callable[[str], None],
) -> tuple[dict[tuple[str, int], list[Figures]], int]:
    """Figures of a diffusion model's samples by solver and evaluations, and its size."""
    some = motions(recipe.motions, recipe.seed)
    centre, scale = some.angles.mean((0, 1)), some.angles.std((0, 1))

    def data() -> Images:
        x = ((some.angles - centre) / scale).reshape(-1, SIDE, SIDE)
        return Images(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(some.labels))

    net = trained(f"motion-diffusion-{recipe.motions}-{recipe.seed}", rival.recipe, data, progress)
    found: dict[tuple[str, int], list[Figures]] = {}
    solvers: list[Solver] = [Euler(n) for n in (2, 4, 8, 16, 32, 64)]
    solvers += [*(DPMpp2M(n) for n in (4, 8, 16)), *(Heun(n) for n in (2, 4, 8))]
    for solver in solvers:
        for i in range(seeds):
            start = time.perf_counter()
            drawn = denoised(net, solver, len(labels), labels.tolist(), seed=1_000 * seed + i)
            x = drawn.x.reshape(-1, FRAMES, JOINTS).double().numpy() * scale + centre
            name = type(solver).__name__, round(drawn.cost.evaluations / len(labels))
            found.setdefault(name, []).append(measured(x, time.perf_counter() - start))
        progress(f"{name}: {found[name][0].frechet:.3f}")
    return found, sum(p.numel() for p in net.module.parameters())


def faster(ours: list[Figures], theirs: dict[tuple[str, int], list[Figures]]) -> list[Check]:
    """The clause on diffusion: the cheapest of its samplers that is as near as we are, infinite where none is."""
    bound = np.mean([f.frechet for f in ours])
    near = [name for name, some in theirs.items() if np.mean([f.frechet for f in some]) <= bound]
    evaluations = min((count for _, count in near), default=math.inf)
    seconds = min((float(np.mean([f.seconds for f in theirs[name]])) for name in near), default=math.inf)
    mine = float(np.mean([f.seconds for f in ours]))
    return [
        Check("evaluations of motion diffusion at our Frechet distance over ours", evaluations / PASSES, ">", 1.0),
        Check("seconds of motion diffusion at our Frechet distance over ours", seconds / mine, ">", 1.0),
    ]


def weights(model: MaskedMotionModel) -> int:
    """Numbers of the transformer."""
    return sum(p.numel() for p in model.predictor.module.parameters())  # type: ignore[attr-defined]


class Judge(nn.Module):
    """Recognises labels of motions; its 16 features are what Frechet distances are taken in."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mix = nn.Conv1d(JOINTS, 48, 5, padding=2), nn.Conv1d(48, 48, 5, padding=2)
        self.narrow, self.leave = nn.Linear(96, 16), nn.Linear(16, len(LABELS))

    def features(self, x: Floats) -> Tensor:
        """(n, 16)."""
        found = F.gelu(self.mix(F.gelu(self.enter(torch.from_numpy(x.astype(np.float32)).transpose(1, 2)))))
        return torch.tanh(self.narrow(torch.cat([found.mean(2), found.amax(2)], -1)))

    @torch.no_grad()
    def labels(self, x: Floats) -> Floats:
        """(n,) the likeliest label."""
        return np.asarray(self.leave(self.features(x)).argmax(-1).numpy())


def classifier(some: Motions, updates: int) -> Judge:
    """A judge that learned from motions that no other model saw."""
    labels = torch.from_numpy(some.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = Judge()
    optimiser, drawn = torch.optim.AdamW(judge.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, 0.02 + 1.5 * (1 - update / updates))
        rows = torch.randint(len(labels), (64,), generator=drawn)
        loss = F.cross_entropy(judge.leave(judge.features(some.angles[rows.numpy()])), labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return judge.eval().requires_grad_(False)


def _row(some: list[Figures]) -> list[object]:
    right = str(bootstrap_mean(np.concatenate([f.right for f in some]).tolist()))
    return [right, *(float(np.mean([asdict(f)[k] for f in some])) for k in ("frechet", "energy"))]


def _notes(found: dict[str, list[Figures]], passes: dict[str, float]) -> str:
    rows = [
        [name, f"{passes[name]:.0f}", len(some), *_row(some), f"{1e3 * np.mean([f.seconds for f in some]):.2f}"]
        for name, some in found.items()
    ]
    return table(["arm", "evaluations", "seeds", "label recognised", "Frechet", "energy", "ms each"], rows)


def _solvers(found: dict[tuple[str, int], list[Figures]]) -> str:
    rows = [
        [name, count, *_row(some), f"{1e3 * np.mean([f.seconds for f in some]):.2f}"]
        for (name, count), some in found.items()
    ]
    return table(["solver", "evaluations", "label recognised", "Frechet", "energy", "ms each"], rows)
