"""Linear causal models on random graphs, and three ways in which their values drop out to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from anystep.errors import UsageError

Floats = np.ndarray[Any, np.dtype[np.float64]]
Kind = Literal["random", "truncation", "logistic", "parents"]
KINDS = ("random", "truncation", "logistic", "parents")


@dataclass(frozen=True)
class Simulated:
    """A graph's edges (cause, effect), the values as they are and as they are seen: (rows, variables), 0 if dropped."""

    edges: Any  # bool (variables, variables)
    latent: Floats
    seen: Floats


def simulate(
    seed: int | list[int],
    rows: int = 10_000,
    variables: int = 10,
    degree: float = 2.0,
    kind: Kind = "logistic",
    rates: tuple[float, float] = (0.1, 0.7),
    level: float = 4.0,
) -> Simulated:
    """A linear Gaussian model on an Erdos-Renyi graph, and its dropouts.

    degree: edges a variable, both ends counted. Weights are uniform on +-[.25, 1], noises standard normal; each
    variable is then scaled to deviation 1 and shifted to mean `level`, as log expression is. rates: the share of zeros
    is uniform between these, a draw for each variable. kind: `random` drops values whatever they are; `truncation` all
    below a quantile; `logistic` low values more often (odds fall by e^2 a standard deviation); `parents` breaks
    the dropout model: the *causes* of a variable, not its value, decide (for one without causes, as `random`).
    """
    if kind not in KINDS or not 0 <= rates[0] <= rates[1] < 1 or variables < 2 or rows < 2:
        raise UsageError(f"simulate(seed, rows=10_000, variables=10, kind={kind!r}, rates=(0.1, 0.7)): kinds {KINDS}.")
    rng = np.random.Generator(np.random.Philox(seed))
    order = rng.permutation(variables)
    above = np.triu(rng.random((variables, variables)) < degree / (variables - 1), 1)
    edges = np.zeros((variables, variables), dtype=bool)
    edges[np.ix_(order, order)] = above
    weights = edges * rng.uniform(0.25, 1, edges.shape) * rng.choice([-1, 1], edges.shape)
    z = rng.standard_normal((rows, variables))
    for v in order:
        z[:, v] += z @ weights[:, v]
    z = (z - z.mean(0)) / z.std(0)
    rate = rng.uniform(*rates, variables)
    drivers = [_driver(kind, z, weights, v) for v in range(variables)]
    dropped = [_dropped(kind, d, r, rng) for d, r in zip(drivers, rate, strict=True)]
    return Simulated(edges, z + level, np.where(np.stack(dropped, 1), 0.0, z + level))


def _driver(kind: Kind, z: Floats, weights: Floats, v: int) -> Floats:
    """What decides on dropouts of a variable."""
    if kind != "parents":
        return z[:, v]
    mean = z @ weights[:, v]
    spread = mean.std()
    return mean / spread if spread > 0 else np.zeros(len(z))


def _dropped(kind: Kind, driver: Floats, rate: float, rng: np.random.Generator) -> Any:
    u = rng.random(len(driver))
    if kind == "random" or not driver.any():
        return u < rate
    if kind == "truncation":
        return driver < np.quantile(driver, rate)
    low, high = -20.0, 20.0
    for _ in range(60):  # the offset at which the mean probability is the rate
        middle = (low + high) / 2
        low, high = (middle, high) if special.expit(middle - 2 * driver).mean() < rate else (low, middle)
    return u < special.expit(low - 2 * driver)
