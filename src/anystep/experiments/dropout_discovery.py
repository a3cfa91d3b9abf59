"""Row 60: causal discovery from data with dropouts, by tests that leave out rows with zeros in what is conditioned on.

Stated time: four minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from anystep.bayes.causal import Independence, Kind, dropout_check, simulate
from anystep.calibrate.interval import Interval, bootstrap_mean, wilson
from anystep.experiments._dropouts import ARMS, FREE, OURS, decisions, distances
from anystep.experiments._figures import held, paired, table
from anystep.experiments.check import Result
from anystep.process import Floats

ROW = 60
FOLLOWING: tuple[Kind, ...] = ("random", "truncation", "logistic")
LEVEL = 0.01


def run(
    seed: int = 0, progress: Callable[[str], None] = print, networks: int = 10, rows: int = 10_000, checked: int = 30
) -> Result:
    """Check every clause of the row.

    networks: of each kind of dropout, 10 variables each. rows: of each. checked: data sets of each kind that the
    validation test sees, and 40 in place of 30 that violate the model.
    """
    began = time.perf_counter()
    same, sizes = agreement(seed, networks, rows)
    progress(f"decisions that agree with those without dropouts: {same.mean():.3f}")
    shd = searched(seed, networks, rows, progress)
    false, caught = flags(seed, checked)
    progress(f"flagged: {false} of those that follow the model, {caught} of those that do not")
    names = list(ARMS)
    checks = [
        held(
            "decisions given up to 2 that agree with dropout-free data",
            bootstrap_mean(same.mean(0)),
            ">=",
            0.95,
        )
    ]
    for m, search in enumerate(("PC", "GES")):
        ours, free = (shd[:, :, names.index(arm), m].mean(0) for arm in (OURS, FREE))
        for arm in ("raw zeros", "mean imputed", "diffusion imputed"):
            less = paired(*(shd[1:, :, names.index(a), m].mean(0) for a in (OURS, arm)))
            checks.append(held(f"{search}: Hamming distance less that of {arm}, truncation and logistic", less, "<", 0))
        checks.append(
            held(f"{search}: Hamming distance less 1.2 times that without dropouts", paired(ours, 1.2 * free), "<=", 0)
        )
    checks.append(held(f"data that violate the dropout model and are flagged at level {LEVEL}", caught, ">=", 0.9))
    checks.append(held("data that follow it and are flagged", false, "<=", 0.05))
    lines = [
        [kind, *(f"{shd[k, :, a, 0].mean():.2f} / {shd[k, :, a, 1].mean():.2f}" for a in range(len(names)))]
        for k, kind in enumerate(FOLLOWING)
    ]
    notes = (
        f"{networks} networks a kind, 10 variables, mean degree 2, {rows} rows, each variable's rate of dropouts "
        f"uniform on 10 to 70%; tests at level 0.01, GES with the BIC. Agreement by kind {_row(same.mean(1))}, by "
        f"number given {_row(sizes)}. Mean Hamming distance, PC / GES:\n{table(['dropouts', *names], lines)}"
    )
    return Result("dropout_discovery", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def agreement(seed: int, networks: int, rows: int) -> tuple[Floats, list[float]]:
    """Share of equal decisions, (kinds, networks), and by how many variables are given."""
    shares, equal, given = [], [], []
    for kind in FOLLOWING:
        for n in range(networks):
            data = simulate([seed, n], rows=rows, kind=kind)
            truth, sizes = decisions(Independence(data.latent, "none"))
            same = decisions(Independence(data.seen))[0] == truth
            shares.append(same.mean())
            equal.append(same)
            given.append(sizes)
    every, size = np.concatenate(equal), np.concatenate(given)
    return np.array(shares).reshape(3, networks), [float(every[size == k].mean()) for k in range(3)]


def searched(seed: int, networks: int, rows: int, progress: Callable[[str], None]) -> Floats:
    """Hamming distances: (kinds, networks, arms, PC and GES)."""
    found = []
    for kind in FOLLOWING:
        found.append([distances(simulate([seed, n], rows=rows, kind=kind)) for n in range(networks)])
        means = np.mean(found[-1], 0)
        progress(f"{kind}: " + ", ".join(f"{a} {x:.2f}/{y:.2f}" for a, (x, y) in zip(ARMS, means, strict=True)))
    return np.array(found)


def flags(seed: int, checked: int) -> tuple[Interval, Interval]:
    """Shares flagged of data that follow the dropout model, and of data whose dropouts the causes decide."""
    false = [
        dropout_check(simulate([seed, 1, n], kind=kind).seen, LEVEL).flagged
        for kind in FOLLOWING
        for n in range(checked)
    ]
    caught = [
        dropout_check(simulate([seed, 2, n], kind="parents").seen, LEVEL).flagged for n in range(checked * 4 // 3)
    ]
    return wilson(sum(false), len(false)), wilson(sum(caught), len(caught))


def _row(values: object) -> str:
    return " ".join(f"{v:.3f}" for v in np.ravel(np.asarray(values)))
