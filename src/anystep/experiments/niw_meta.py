"""Row 37: a normal-inverse-Wishart belief over episodes' networks against MAML, in error, calibration and memory.

Stated time: eight minutes.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor

from anystep.bayes.sequential.batched import MLP
from anystep.bayes.sequential.niw_meta import Classes, Langevin, NIWMeta, Noise
from anystep.bayes.sequential.normal_inverse_wishart import Full, Local
from anystep.calibrate.interval import Interval
from anystep.experiments._episodes import SHOTS, WAYS, Episodes, Maml, Rotated, crossed, sinusoids, squared
from anystep.experiments._figures import held, paired, table
from anystep.experiments._memory import saved_bytes
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 37
WAVES, DIGITS = MLP((1, 40, 40, 1)), MLP((196, 64, WAYS))
RATE = 1e-2  # of the outer steps on sinusoids, of both learners the best of 1e-3, 3e-3 and 1e-2 on other episodes
SD = 0.3  # of the noise that the belief assumes of the sinusoids, which have none
WAVE_STEPS = Langevin(steps=20, step=3.6e-4, keep=1, cap=1e5, heat=0.0)
DIGIT_STEPS = Langevin(steps=8, step=5e-2, keep=1, cap=1e4, heat=0.0)


@dataclass(frozen=True)
class Size:
    """updates of sinusoids and digits, episodes of each update, seeds, episodes of the test."""

    waves: int = 600
    digits: int = 400
    tasks: int = 16
    seeds: int = 2
    test: int = 400


@dataclass(frozen=True)
class Figures:
    """Of a method over the test's episodes (episodes,): error, and negative log density of an answer. p and y: of the
    digits, the chosen class's probability and whether it was right, (episodes, asked)."""

    error: Floats
    nll: Floats
    p: Floats | None = None
    y: Floats | None = None


def run(seed: int = 0, progress: Callable[[str], None] = print, size: Size | None = None) -> Result:
    """Check every clause of the row at `size`."""
    began, size = time.perf_counter(), size or Size()
    waves = [waves_of(seed + s, size, progress) for s in range(size.seeds)]
    digits = [digits_of(seed + s, size, progress) for s in range(size.seeds)]
    ours, theirs = ({k: joined([w[k] for w in runs]) for k in runs[0]} for runs in (waves, digits))
    bytes_ = {steps: memory(steps) for steps in (1, 4, 16)}
    alive, grown = leftovers()
    calibration = ece_gap(theirs["NIW-Meta"], theirs["MAML"])
    checks = (
        Check("distance of local posteriors from the numerical optimum", linear_gap(), "<=", 1e-4),
        held("sinusoids: squared error, NIW-Meta less MAML", gap(ours, "error"), "<=", 0.0),
        held("sinusoids: negative log density, NIW-Meta less MAML", gap(ours, "nll"), "<", 0.0),
        held("rotated digits: error, NIW-Meta less MAML", gap(theirs, "error"), "<=", 0.0),
        held("rotated digits: ECE, NIW-Meta less MAML", calibration, "<", 0.0),
        Check("bytes saved for the way back, 16 inner steps over 1: NIW-Meta", ratio(bytes_, 0), "==", 1.0),
        Check("the same of MAML", ratio(bytes_, 1), ">", 2.0),
        Check("episodes' Gaussians alive after an update", alive, "==", 0),
        Check("numbers that 10 more updates add to the learner", grown, "==", 0),
    )
    return Result("niw_meta", ROW, checks, time.perf_counter() - began, seed, told(size, ours, theirs, bytes_))


def waves_of(seed: int, size: Size, progress: Callable[[str], None]) -> dict[str, Figures]:
    """Sinusoids: every learner on as many episodes, its variance of answers and MAML's steps chosen on others."""
    draws = [torch.Generator().manual_seed(1000 * seed + k) for k in range(3)]
    dev, test = sinusoids(200, 50, draws[1]), sinusoids(size.test, 50, draws[2])

    def batch(draw: torch.Generator) -> Episodes:
        return sinusoids(size.tasks, 10, draw)

    found = {}
    arms = {
        "NIW-Meta": WAVE_STEPS,
        "NIW-Meta, trained with 2 inner steps": replace(WAVE_STEPS, steps=2),
        "NIW-Meta, precision from iterates": replace(WAVE_STEPS, keep=3, heat=0.3),
    }
    for name, steps in arms.items():
        ours = NIWMeta(WAVES, Noise(SD), size.waves * size.tasks, quadratic=steps, rate=RATE, seed=seed)
        ours.fit(stream(batch, seed, whole=True), size.waves)
        settle(ours, dev, (20, 40, 80))
        found[name] = waves_told(partial(drawn, ours), dev, test)
        if name == "NIW-Meta":
            found["NIW-Meta, means alone"] = waves_told(partial(centre, ours), dev, test)
        progress(f"sinusoids, seed {seed}, {name} at {ours.quadratic.steps} steps: {found[name].error.mean():.3f}")
    maml = Maml(WAVES, squared, 5, 0.01, seed, RATE).fit(maml_stream(batch, seed), size.waves)
    best = min((5, 10, 20, 40, 80), key=lambda k: float(squared(*maml_answers(maml, dev, k)).mean()))
    found["MAML"] = waves_told(lambda e: (maml_answers(maml, e, best)[0], torch.zeros(())), dev, test)
    found["no adaptation"] = waves_told(lambda e: (maml_answers(maml, e, 0)[0], torch.zeros(())), dev, test)
    progress(f"sinusoids, seed {seed}, MAML at {best} steps: {found['MAML'].error.mean():.3f}")
    return found


def digits_of(seed: int, size: Size, progress: Callable[[str], None]) -> dict[str, Figures]:
    """Rotated digits: angles and digits of the test were not trained on; steps of new episodes are chosen on others."""
    train, dev, test = (Rotated(split) for split in ("train", "dev", "test"))
    draws = [torch.Generator().manual_seed(1000 * seed + k) for k in range(3)]
    chosen, asked = dev.episodes(200, 5, draws[1]), test.episodes(size.test, 5, draws[2])

    def batch(draw: torch.Generator) -> Episodes:
        return train.episodes(size.tasks, 3, draw)

    ours = NIWMeta(DIGITS, Classes(), size.digits * size.tasks, quadratic=DIGIT_STEPS, precision_rate=1e-2, seed=seed)
    ours.fit(stream(batch, seed, whole=True), size.digits)
    settle(ours, chosen, (16, 64, 128))
    found = {"NIW-Meta": digits_told(drawn(ours, asked)[0], asked)}
    found["NIW-Meta, means alone"] = digits_told(centre(ours, asked)[0].softmax(-1), asked)
    progress(f"digits, seed {seed}, NIW-Meta at {ours.quadratic.steps} steps: {found['NIW-Meta'].error.mean():.3f}")
    maml = Maml(DIGITS, crossed, 3, 0.3, seed).fit(maml_stream(batch, seed), size.digits)
    best = min((6, 12, 24, 48), key=lambda k: float(crossed(*maml_answers(maml, chosen, k)).mean()))
    found["MAML"] = digits_told(maml_answers(maml, asked, best)[0].softmax(-1), asked)
    progress(f"digits, seed {seed}, MAML at {best} steps: {found['MAML'].error.mean():.3f}")
    return found


def settle(ours: NIWMeta, dev: Episodes, among: tuple[int, ...]) -> None:
    """As many inner steps for new episodes as are best on `dev`: in squared error, or in log-loss of classes."""
    found = {}
    for steps in among:
        ours.quadratic = replace(ours.quadratic, steps=steps)
        answers, y = drawn(ours, dev)[0], dev.asked()[1]
        found[steps] = float((squared(answers, y) if y.ndim == 3 else crossed(answers.clamp_min(1e-9).log(), y)).mean())
    ours.quadratic = replace(ours.quadratic, steps=min(found, key=lambda k: found[k]))


def stream(
    batch: Callable[[torch.Generator], Episodes], seed: int, whole: bool = False
) -> Callable[[], tuple[Tensor, Tensor, int]]:
    """The same episodes for every learner of a seed; `whole` fits an episode's Gaussian to all its points."""
    draw = torch.Generator().manual_seed(seed + 77)

    def following() -> tuple[Tensor, Tensor, int]:
        episodes = batch(draw)
        return episodes.x, episodes.y, episodes.x.shape[1] if whole else episodes.support

    return following


def maml_stream(batch: Callable[[torch.Generator], Episodes], seed: int) -> Callable[[], Episodes]:
    draw = torch.Generator().manual_seed(seed + 77)
    return lambda: batch(draw)


def drawn(ours: NIWMeta, episodes: Episodes, samples: int = 10) -> tuple[Tensor, Tensor]:
    """The average answer at what is asked, and the variance of the samples' outputs."""
    local, x = ours.adapt(*episodes.seen()), episodes.asked()[0]
    with torch.no_grad():
        noise = (torch.randn(local.mean.shape, generator=ours.draw) for _ in range(samples))
        outs = torch.stack([ours.net(local.draw(n), x) for n in noise])
    return ours.likelihood.average(outs), outs.var(0)


def centre(ours: NIWMeta, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Outputs of the networks at the Gaussians' means: q_i as a point."""
    local = ours.adapt(*episodes.seen())
    with torch.no_grad():
        return ours.net(local.mean, episodes.asked()[0]), torch.zeros(())


def maml_answers(maml: Maml, episodes: Episodes, steps: int) -> tuple[Tensor, Tensor]:
    x, y = episodes.asked()
    return maml.net(maml.adapt(*episodes.seen(), steps), x).detach(), y


def waves_told(answer: Callable[[Episodes], tuple[Tensor, Tensor]], dev: Episodes, test: Episodes) -> Figures:
    """Squared errors; and the densities of normals whose variance is the samples' and one constant fitted on `dev`."""
    mean, variance = answer(dev)
    squares = (mean - dev.asked()[1]) ** 2
    grid = torch.logspace(-3, 1, 41)
    nll = [float((torch.log(v + variance) + squares / (v + variance)).mean()) for v in grid]
    extra = grid[int(np.argmin(nll))]
    mean, variance = answer(test)
    squares = (mean - test.asked()[1]) ** 2
    each = 0.5 * (torch.log(2 * torch.pi * (extra + variance)) + squares / (extra + variance))
    return Figures(*(v.flatten(1).mean(1).double().numpy() for v in (squares, each)))


def digits_told(probabilities: Tensor, episodes: Episodes) -> Figures:
    y = episodes.asked()[1]
    p, chosen = probabilities.max(-1)
    right = (chosen == y).double()
    nll = -probabilities.gather(-1, y[..., None])[..., 0].clamp_min(1e-9).log()
    return Figures(
        1 - right.mean(1).numpy(), nll.double().mean(1).numpy(), p.double().numpy(), np.asarray(right.numpy())
    )


def joined(runs: list[Figures]) -> Figures:
    """Of several seeds, one behind the other."""
    error, nll = (np.concatenate([getattr(run, name) for run in runs]) for name in ("error", "nll"))
    p, y = ([v for run in runs if (v := getattr(run, name)) is not None] for name in ("p", "y"))
    return Figures(error, nll, np.concatenate(p) if p else None, np.concatenate(y) if y else None)


def gap(found: dict[str, Figures], of: str) -> Interval:
    return paired(getattr(found["NIW-Meta"], of), getattr(found["MAML"], of))


def calibration(figures: Figures, rows: NDArray[np.int64] | slice = slice(None), bins: int = 15) -> float:
    """The expected calibration error over bins of equal mass, its bins' noise included, as it is in both learners'."""
    assert figures.p is not None and figures.y is not None
    p, y = figures.p[rows].ravel(), figures.y[rows].ravel()
    parts = np.array_split((y - p)[np.argsort(p, kind="stable")], bins)
    return float(sum(abs(part.sum()) for part in parts) / len(p))


def ece_gap(ours: Figures, theirs: Figures, resamples: int = 1_000) -> Interval:
    """Ours less theirs, with the percentile interval over episodes that both were asked."""
    rng = np.random.default_rng(0)
    n = len(ours.error)
    draws = (rng.integers(0, n, n) for _ in range(resamples))
    gaps = [calibration(ours, at) - calibration(theirs, at) for at in draws]
    low, high = np.quantile(gaps, [0.025, 0.975])
    value = calibration(ours) - calibration(theirs)
    return Interval(value, min(float(low), value), max(float(high), value))


def linear_gap() -> float:
    """The largest entry's distance between the closed form and the optimum that a quasi-Newton search finds of the
    bound of a linear-Gaussian episode with correlated inputs, over five episodes. The bound is SciPy's densities at
    the nodes of a quadrature; the quadratic is the exact one of least squares."""
    rng, gaps = np.random.default_rng(0), []
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    grid = np.stack([g.ravel() for g in np.meshgrid(nodes, nodes)], 1)
    mass = np.outer(weights, weights).ravel() / (2 * np.pi)
    for _ in range(5):
        root = rng.normal(size=(2, 2))
        q = Full(torch.from_numpy(rng.normal(size=2)), torch.from_numpy(root @ root.T + 0.2 * np.eye(2)), 6)
        x = rng.normal(size=(7, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
        y = x @ rng.normal(size=2) + 0.5 * rng.normal(size=7)
        at, precision = torch.from_numpy(np.linalg.lstsq(x, y, rcond=None)[0]), torch.from_numpy(x.T @ x / 0.25)
        local = q.local(at[None], precision[None])
        centre_, n = q.centre.detach().numpy(), q.counts[1]
        inverse = stats.wishart(n, q.precision.detach().numpy() / n).mean()

        def bound(free: Floats) -> float:
            low = np.array([[np.exp(free[2]), 0.0], [free[3], np.exp(free[4])]])
            points = free[:2] + grid @ low.T
            away = np.einsum("gi,ij,gj->g", points - centre_, inverse, points - centre_) @ mass / 2  # noqa: B023
            fits = stats.norm(y, 0.5).logpdf(points @ x.T).sum(1) @ mass  # noqa: B023
            return float(away - fits - free[2] - free[4])

        best = optimize.minimize(bound, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
        low = np.array([[np.exp(best[2]), 0.0], [best[3], np.exp(best[4])]])
        gaps += [np.abs(local.mean[0].detach().numpy() - best[:2]).max()]
        gaps += [np.abs(local.spread[0].detach().numpy() - low @ low.T).max()]
    return float(max(gaps))


def memory(steps: int) -> tuple[int, int]:
    """The most bytes that graphs hold in one update of 16 episodes of sinusoids: NIW-Meta's and MAML's."""
    episodes = sinusoids(16, 10, torch.Generator().manual_seed(0))
    ours = NIWMeta(WAVES, Noise(SD), 16, quadratic=replace(WAVE_STEPS, steps=steps))
    theirs = Maml(WAVES, squared, steps, 0.01, 0)
    return (
        saved_bytes(lambda: ours.update(episodes.x, episodes.y, SHOTS)),
        saved_bytes(lambda: theirs.update(episodes)),
    )


def ratio(bytes_: dict[int, tuple[int, int]], which: int) -> float:
    return bytes_[16][which] / bytes_[1][which]


def leftovers() -> tuple[int, int]:
    """Gaussians of episodes that live on after an update, and by how many numbers the learner grew in ten."""
    ours = NIWMeta(WAVES, Noise(SD), 160, quadratic=replace(WAVE_STEPS, steps=2))
    made: list[weakref.ref[Local]] = []
    adapt = ours.adapt

    def watched(x: Tensor, y: Tensor) -> Local:
        local = adapt(x, y)
        made.append(weakref.ref(local))
        return local

    ours.adapt = watched  # type: ignore[method-assign]
    draw, sizes = torch.Generator().manual_seed(0), []
    for _ in range(11):
        episodes = sinusoids(16, 10, draw)
        ours.update(episodes.x, episodes.y, SHOTS)
        gc.collect()
        states = [v for state in ours.optimiser.state.values() for v in state.values() if isinstance(v, Tensor)]
        sizes.append(sum(v.numel() for v in [*ours.belief.parameters(), *states]))
    return sum(ref() is not None for ref in made), sizes[-1] - sizes[0]


def told(size: Size, waves: dict[str, Figures], digits: dict[str, Figures], bytes_: dict[int, tuple[int, int]]) -> str:
    first = [[name, float(f.error.mean()), float(f.nll.mean())] for name, f in waves.items()]
    second = [[n, float(f.error.mean()), calibration(f), float(f.nll.mean())] for n, f in digits.items()]
    held_ = [[steps, *both] for steps, both in bytes_.items()]
    return "\n\n".join(
        [
            f"{size.seeds} seeds; {size.waves} and {size.digits} updates of {size.tasks} episodes for every learner, "
            f"the same ones; {size.test} test episodes a seed. MAML: gradients of gradients, 5 inner steps of 0.01 on "
            "sinusoids and 3 of 0.3 on digits, as many at the test as are best on other episodes. NIW-Meta: 20 "
            "steps of 3.6e-4, on digits 8 of 0.05, on whole episodes, and likewise at the test.",
            table(["sinusoids, 10 shots", "squared error", "-log density"], first),
            table(["rotated digits, 5-way 1-shot", "error", "ECE", "-log probability"], second),
            table(["inner steps", "bytes NIW-Meta", "bytes MAML"], held_),
        ]
    )
