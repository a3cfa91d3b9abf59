"""Row 162: learning from label proportions by belief propagation, against holding bags' means to their proportions.

Stated time: six minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from anystep.bayes.graphs import (
    LabelProportions,
    Ties,
    belief_propagation,
    counted,
    label_proportions_bp,
    near,
    proportion_loss_training,
)
from anystep.errors import UsageError
from anystep.experiments._figures import held, paired, table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 162
SIZES = (8, 32, 128)
NO_COUNT = 1e-6  # a penalty so small that the count says nothing
INSTANCES = (1_000, 10_000, 100_000)
ARMS: dict[str, Callable[..., LabelProportions]] = {
    "proportion loss": proportion_loss_training,
    "one round": partial(label_proportions_bp, rounds=1),
    "two rounds": partial(label_proportions_bp, rounds=2),
    "no similarity": partial(label_proportions_bp, rounds=2, neighbours=0),
    "no count": partial(label_proportions_bp, rounds=2, penalty=NO_COUNT),
}


def tables() -> dict[str, tuple[Floats, NDArray[np.int64]]]:
    """Breast cancer, and digits as even or odd. Raises UsageError without scikit-learn, which carries them."""
    try:
        from sklearn.datasets import load_breast_cancer, load_digits
    except ImportError as error:
        raise UsageError('the tables come with scikit-learn: pip install "anystep[bayes]".') from error
    cancer, malignant = load_breast_cancer(return_X_y=True)
    digits, number = load_digits(return_X_y=True)
    return {"breast cancer": (cancer, malignant), "digits": (digits, number % 2)}


def run(seed: int = 0, progress: Callable[[str], None] = print, seeds: int = 5, trees: int = 100) -> Result:
    """Check every clause of the row.

    seeds: splits and trainings of each table and size. trees: random factor graphs without loops.
    """
    began = time.perf_counter()
    errors = [exactness(seed + i) for i in range(trees)]
    progress(f"{trees} random trees: largest error {max(errors):.1e}")
    auc: dict[tuple[str, int, str], Floats] = {}
    for (name, (x, y)), size in product(tables().items(), SIZES):
        found = np.array([areas(x, y, size, seed + i) for i in range(seeds)])
        auc |= {(name, size, arm): found[:, at] for at, arm in enumerate(ARMS)}
        progress(
            f"{name}, bags of {size}: " + ", ".join(f"{a} {v:.3f}" for a, v in zip(ARMS, found.mean(0), strict=True))
        )
    growth, times = near_linear(seed)
    progress("seconds: " + ", ".join(f"{n:,}: {t:.2f}" for n, t in times.items()))
    large = [(name, size) for name in tables() for size in SIZES if size > 8]
    every = [(name, size) for name in tables() for size in SIZES]

    def gain(arm: str, other: str, where: list[tuple[str, int]]) -> Any:
        return paired(
            np.concatenate([auc[*at, arm] for at in where]), np.concatenate([auc[*at, other] for at in where])
        )

    checks = (
        Check("largest error of a marginal on bags alone and trees, against enumeration", max(errors), "<=", 1e-8),
        *(
            held(
                f"{name}, bags of {size}: AUC less proportion loss's",
                paired(auc[name, size, "two rounds"], auc[name, size, "proportion loss"]),
                ">",
                0,
            )
            for name, size in large
        ),
        held("AUC of the second round less the first's", gain("two rounds", "one round", every), ">=", -0.005),
        held("AUC less that without similarity, larger bags", gain("two rounds", "no similarity", large), ">", 0),
        held("AUC less that without counts, larger bags", gain("two rounds", "no count", large), ">", 0),
        Check("power of the number of instances that the time grows by", growth, "<=", 1.2),
    )
    rows = [[n, s, *(float(auc[n, s, arm].mean()) for arm in ARMS)] for n, s in every]
    notes = (
        f"Instance AUC on held-out quarters, means of {seeds} splits. Bags of 8 are reported and gate nothing but the "
        "second round: there proportion loss may win.\n" + table(["table", "bags of", *ARMS], rows)
    )
    return Result("label_proportions_bp", ROW, checks, time.perf_counter() - began, seed, notes)


def areas(x: Floats, y: NDArray[np.int64], size: int, seed: int) -> list[float]:
    """Of one split, the AUC of each arm."""
    order = np.random.default_rng(seed).permutation(len(x))
    cut = len(x) * 3 // 4 // size * size
    train, test = order[:cut], order[len(x) * 3 // 4 :]
    bags = np.arange(cut) // size
    counts = np.bincount(bags, y[train])
    return [
        area(y[test], learn(x[train], bags, counts, seed=seed).predict_proba(x[test])[:, 1]) for learn in ARMS.values()
    ]


def area(labels: NDArray[np.int64], scores: Floats) -> float:
    """Area under the ROC curve, from ranks."""
    positive = labels == 1
    p, n = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * n))


def exactness(seed: int) -> float:
    """The largest error of a marginal on three bags, with ties between them that close no loop, or on one bag alone."""
    rng = np.random.default_rng(seed)
    alone = seed % 2 == 0
    sizes = [int(rng.integers(2, 13))] if alone else rng.multinomial(6, [1 / 3] * 3) + 2
    bags = np.repeat(np.arange(len(sizes)), sizes)
    n, own = len(bags), rng.normal(size=len(bags)) * 1.5
    counts = np.array([float(rng.integers(0, size + 1)) for size in sizes])
    ends, strength = np.zeros((0, 2), np.int64), np.zeros(0)
    if not alone:
        pick = [int(rng.choice(np.flatnonzero(bags == b))) for b in (0, 1, 1, 2)]
        ends, strength = np.array([pick[:2], pick[2:]]), rng.normal(size=2)
    labels = np.array(list(product((0, 1), repeat=n)))
    totals = np.stack([labels[:, bags == b].sum(1) for b in range(len(sizes))], 1)
    log = labels @ own - (labels[:, ends[:, 0]] != labels[:, ends[:, 1]]) @ strength
    mass = np.exp(log - log.max()) * (totals == counts).all(1)
    found = belief_propagation(
        n, counted(bags, counts, None), Ties(ends, strength), own, damping=0.0, tolerance=0.0, iterations=10
    )
    return float(np.abs(found.marginals - mass @ labels / mass.sum()).max())


def near_linear(seed: int) -> tuple[float, dict[int, float]]:
    """The slope of log time in log instances, bags of 32 and neighbours of five, finding these included."""
    rng, times = np.random.default_rng(seed), dict[int, float]()
    for n in INSTANCES:
        size = n // 32 * 32
        x, y = rng.normal(size=(size, 4)), rng.integers(0, 2, size)
        bags = np.arange(size) // 32
        factors = counted(bags, np.bincount(bags, y).astype(np.float64), None)
        began = time.process_time()
        belief_propagation(size, factors, near(x, 5, 1.0), iterations=20, tolerance=0.0)
        times[n] = time.process_time() - began
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0]), times
