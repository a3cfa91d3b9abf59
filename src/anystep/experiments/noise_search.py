"""Row 175: searches over the noises of DigitFlow, by three algorithms and three verifiers, against more steps.

Every sample of a set is one search's answer, of the classes that the held-out digits have, which it is compared with.
Costs are rows of the network; what the verifier is asked is counted beside. Classifier "a" verifies; classifier "b",
trained apart, only judges, and the Frechet distance is in its features.

Stated time: eight minutes on one quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep import search
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.diffusion import DiffusionProcess, NearbyNoise, Renoise, sample
from anystep.diffusion.evaluate import Quality, digits_quality, over
from anystep.diffusion.models import digits, digits_classifier
from anystep.diffusion.solvers import Euler
from anystep.experiments._digit_search import Found, MethodOf, Score, searched
from anystep.experiments._figures import held, paired, table
from anystep.experiments.check import Check, Result
from anystep.procedure import Method
from anystep.process import Reward

ROW = 175
STEPS = 50
COSINE = 0.9
VERIFIERS = ("classifier a", "contrast", "ensemble")
ALGORITHMS = ("random", "zero-order", "paths")


def odds(name: str) -> Score:
    """A classifier's log-odds of the digit: a logit, which does not saturate as a probability does."""
    classifier = digits_classifier(name)

    def score(x: Tensor, digit: int) -> Tensor:
        log = classifier(x)[:, digit].double()
        return log - torch.log(-torch.expm1(log))

    return score


def contrast(x: Tensor, digit: int) -> Tensor:
    """How far pixels are from grey, in the mean: a judge of looks that knows no digits."""
    return x.double().abs().clamp_max(1.0).flatten(1).mean(1)


@dataclass(frozen=True)
class Ensemble:
    """The mean of the members' ranks among reference samples, unweighted. members: (values of the reference, sorted,
    and the score) of each."""

    members: tuple[tuple[tuple[float, ...], Score], ...]

    def __call__(self, x: Tensor, digit: int) -> Tensor:
        ranks = [np.searchsorted(seen, score(x, digit).numpy()) / len(seen) for seen, score in self.members]
        # What lies beyond all references is told apart by less than a rank.
        beyond = [np.tanh(score(x, digit).numpy() - seen[-1]).clip(0) / len(seen) for seen, score in self.members]
        return torch.as_tensor(np.mean(ranks, 0) + np.mean(beyond, 0))


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    sets: int = 3,
    n: int = 200,
    steps: int = STEPS,
    sizes: Sequence[int] = (1, 4, 16),
) -> Result:
    """Check every clause of the row. sets: of n searches each, with seeds of their own; sizes: forward passes, in those
    of one sample."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    verifiers = scores(seed)
    seeds = [1_000 * (seed + 1) + k for k in range(sets)]
    checks = list(doubling(verifiers["classifier a"], seeds, n, steps))
    grid: dict[tuple[str, str, int], list[Found]] = {}
    for verifier, algorithm, size in cells(sizes):
        method = method_of(algorithm, size, steps)
        model, solver = digits(), Euler(steps)
        grid[verifier, algorithm, size] = [searched(model, solver, verifiers[verifier], method, n, s) for s in seeds]
        scored = np.mean([f.scores.mean() for f in grid[verifier, algorithm, size]])
        progress(f"{time.perf_counter() - began:.0f} s: {verifier}, {algorithm}, {size}x: {scored:.3f}")
    checks += [*raised(grid, sizes), *judged(grid, sizes, seeds, n, steps)]
    told, lines = hacked(grid, sizes)
    return Result("noise_search", ROW, (*checks, *told), time.perf_counter() - began, seed, notes(grid, lines, n, sets))


def scores(seed: int) -> dict[str, Score]:
    """The verifiers by name; the ensemble ranks among 1,000 samples of its own."""
    known: dict[str, Score] = {"classifier a": odds("a"), "contrast": contrast}
    condition = [i % 10 for i in range(1_000)]
    x = sample(digits(), Euler(20), 1_000, condition, seed=77_000 + seed).x
    members = []
    for score in known.values():
        values = np.concatenate([score(x[d::10], d).numpy() for d in range(10)])
        members.append((tuple(np.sort(values).tolist()), score))
    return known | {"ensemble": Ensemble(tuple(members))}


def cells(sizes: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Verifier, algorithm and size of every set; one sample alone is the same for all algorithms."""
    for verifier in VERIFIERS:
        yield verifier, "random", 1
        for algorithm in ALGORITHMS:
            yield from ((verifier, algorithm, size) for size in sizes if size > 1)


def method_of(algorithm: str, size: int, steps: int) -> MethodOf:
    """An algorithm that takes at most `size` samples' forward passes."""

    def make(reward: Reward, process: DiffusionProcess) -> Method:
        if algorithm == "random":
            return search.noise_search(reward, n=size)
        if algorithm == "zero-order":
            rounds = int(np.sqrt(size))
            return search.noise_search(reward, size // rounds, rounds, near=NearbyNoise(process, COSINE))
        return paths(reward, process, size, steps)

    return make


def paths(reward: Reward, process: DiffusionProcess, size: int, steps: int) -> Method:
    """Paths a fourth of the way from the end go back by 18 steps of 50, and come 4 nearer a round."""
    n = 1 if size < 16 else 2
    first, back, net = steps * 3 // 4 + 1, steps * 9 // 25, max(1, steps * 2 // 25)
    rounds = -(-(steps - first) // net)
    branch = max(1, (size * steps - n * first) // (n * rounds * (back + net + 1)))
    return search.path_search(reward, Renoise(process, back), back + net, n, branch, rounds, first)


def doubling(score: Score, seeds: Sequence[int], n: int, steps: int) -> Iterator[Check]:
    """More steps, and no search: what the verifier says from the same noises."""
    sets = {k: [plain(k * steps, s, n) for s in seeds] for k in (1, 2, 4)}
    means = {k: float(np.mean([f.by(score).mean() for f in found])) for k, found in sets.items()}
    for k in (1, 2):
        change = abs(means[2 * k] / means[k] - 1)
        clause = f"from {k * steps} to {2 * k * steps} steps, relative change of the verifier's mean score"
        yield Check(f"{clause} ({means[k]:.3f} to {means[2 * k]:.3f})", change, "<", 0.01)


def plain(steps: int, seed: int, n: int) -> Found:
    """Samples without a search, from the noises that searches start with."""
    return searched(digits(), Euler(steps), contrast, lambda reward, process: search.noise_search(reward, n=1), n, seed)


Grid = dict[tuple[str, str, int], list[Found]]


def all_scores(found: Sequence[Found]) -> np.ndarray:
    return np.concatenate([f.scores for f in found])


def raised(grid: Grid, sizes: Sequence[int]) -> Iterator[Check]:
    """Each algorithm, with classifier "a": more forward passes, higher scores."""
    verifier = VERIFIERS[0]
    for algorithm in ALGORITHMS:
        line = [grid[verifier, "random", 1], *(grid[verifier, algorithm, size] for size in sizes if size > 1)]
        for low, high, fewer, more in zip(line, line[1:], sizes, sizes[1:], strict=False):
            gain = paired(all_scores(high), all_scores(low))
            yield held(f"{algorithm}: the verifier's score at {more}x minus at {fewer}x", gain, ">", 0.0)
        most, least = (np.concatenate([f.evaluations for f in sets]).mean() for sets in (line[-1], line[0]))
        clause = f"{algorithm}: forward passes at {sizes[-1]}x over those of one sample"
        yield Check(clause, float(most / least), "<=", sizes[-1])


def judged(grid: Grid, sizes: Sequence[int], seeds: Sequence[int], n: int, steps: int) -> Iterator[Check]:
    """The held-out classifier on what "a" chose: as it was found, and run again from its noise with four times the
    steps."""
    verifier, judge = VERIFIERS[0], odds("b")
    base = np.concatenate([f.by(judge) for f in grid[verifier, "random", 1]])
    for algorithm in ALGORITHMS:
        found = np.concatenate([f.by(judge) for f in grid[verifier, algorithm, sizes[-1]]])
        clause = f"{algorithm}: the held-out classifier's log-odds at {sizes[-1]}x minus at 1x"
        yield held(clause, paired(found, base), ">", 0.0)
    fine = [plain(4 * steps, s, n) for s in seeds]
    base = np.concatenate([f.by(judge) for f in fine])
    for algorithm in ("random", "zero-order"):
        sets = [refined(algorithm, sizes[-1], s, n, steps) for s in seeds]
        found = np.concatenate([f.by(judge) for f in sets])
        clause = f"{algorithm}: the same, the winner's noise run with {4 * steps} steps, minus 1x at {4 * steps} steps"
        yield held(clause, paired(found, base), ">", 0.0)


def refined(algorithm: str, size: int, seed: int, n: int, steps: int) -> Found:
    """A search whose winner is made again with four times the steps."""

    def make(reward: Reward, process: DiffusionProcess) -> Method:
        full = DiffusionProcess(digits(), Euler(4 * steps), process.condition, name="full")
        options = dict(method_of(algorithm, size, steps)(reward, process).options)
        return search.noise_search(**options | {"full": full})

    return searched(digits(), Euler(steps), odds("a"), make, n, seed)


def hacked(grid: Grid, sizes: Sequence[int]) -> tuple[list[Check], dict[tuple[str, str, int], Quality]]:
    """Where the verifier's score rises and the samples become worse as a set, at the largest size."""
    lines = {key: over([digits_quality(f.x, "b") for f in found]) for key, found in grid.items()}
    worse = []
    for verifier in VERIFIERS:
        base = lines[verifier, "random", 1]
        for algorithm in ALGORITHMS:
            ours = lines[verifier, algorithm, sizes[-1]]
            gain = all_scores(grid[verifier, algorithm, sizes[-1]]) - all_scores(grid[verifier, "random", 1])
            apart = {
                name: (getattr(ours.mean, name) - getattr(base.mean, name))
                / max(np.hypot(getattr(ours.deviation, name), getattr(base.deviation, name)), 1e-12)
                for name in ("frechet", "energy", "mmd", "sw2", "recall")
            }
            far = apart["frechet"] > 2 or apart["recall"] < -2
            gated = max(apart["energy"], apart["mmd"], apart["sw2"]) > 2
            worse.append(bool(bootstrap_mean(gain.tolist()).low > 0 and far and gated))
    clause = (
        "verifier-by-algorithm cells where the verifier's score rose while the Frechet distance or recall, and one of "
        "energy, MMD and sliced Wasserstein, became worse by more than two deviations over the sets"
    )
    return [Check(clause, sum(worse), ">=", 1)], {key: spread.mean for key, spread in lines.items()}


def notes(grid: Grid, lines: dict[tuple[str, str, int], Quality], n: int, sets: int) -> str:
    rows: list[list[object]] = []
    judge = odds("b")
    for (verifier, algorithm, size), found in grid.items():
        q = lines[verifier, algorithm, size]
        labels = torch.cat([digits_classifier("b").labels(f.x) == f.digits for f in found]).double().mean()
        rows.append([
            verifier, "one sample" if size == 1 else algorithm, f"{size}x",
            float(np.mean([f.evaluations.mean() for f in found])), float(np.mean([f.verified.mean() for f in found])),
            str(_mean(all_scores(found))), str(_mean(np.concatenate([f.by(judge) for f in found]))), float(labels),
            q.frechet, 1e3 * q.mmd, q.energy, q.sw2, q.recall,
        ])  # fmt: skip
    head = [
        "verifier", "algorithm", "size", "passes", "verifier asked", "its score", "held-out log-odds", "held-out right",
        "Frechet", "MMD x1000", "energy", "SW2", "recall",
    ]  # fmt: skip
    return f"{sets} sets of {n} searches; Euler, {STEPS} steps a sample.\n\n{table(head, rows)}"


def _mean(values: np.ndarray) -> Interval:
    return bootstrap_mean(values.tolist())
