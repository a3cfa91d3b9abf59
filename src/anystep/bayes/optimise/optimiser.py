"""Where is an expensive function lowest? Bayesian optimisation, one harness for every surrogate.

Jones, Schonlau and Welch (1998): believe something about the function from its values so far, look where the best value
is expected to improve most, and again. What is preserved: nothing is promised of the point found; the evaluations are
never more than the budget, and every one that was made is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from anystep.bayes.optimise.acquisition import sobol, suggest
from anystep.bayes.optimise.surrogates import GPSurrogate, Surrogate
from anystep.errors import UsageError
from anystep.ledger import Budget, Cost, Ledger

Floats = NDArray[np.float64]
Bounds = Sequence[tuple[float, float]] | ArrayLike


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best point found, and all that was looked at.

    x (d,) and y: the lowest value and where; NaN where every evaluation failed. xs (n, d), ys (n,): every evaluation in
    order, NaN where it failed. errors: what those that failed said, by their place. stopped_because: "evaluations" or
    another figure of the budget, or "cancelled".
    """

    x: Floats
    y: float
    xs: Floats
    ys: Floats
    errors: dict[int, str]
    cost: Cost
    stopped_because: str


class BayesianOptimiser:
    """Asks for points and is told their values, lowest wanted.

    bounds: (low, high) of each input. surrogate: what believes, by default a Gaussian process. start: how many points
    of a Sobol sequence come first, by default twice the inputs, at least 4 and at most 10. Points may be told that were
    never asked for, and a value that is not finite is a failed evaluation: it is kept, and its surroundings are left.
    """

    def __init__(
        self, bounds: Bounds, surrogate: Surrogate | None = None, seed: int = 0, start: int | None = None
    ) -> None:
        self.low, self.width = _box(bounds)
        d = len(self.low)
        self.surrogate: Surrogate = GPSurrogate() if surrogate is None else surrogate
        self.seed, self.start = seed, min(10, max(4, 2 * d)) if start is None else start
        if self.start < 1:
            raise UsageError(f"BayesianOptimiser(start={start}): at least one point comes first, start=10")
        self.xs, self.ys, self.asked = np.zeros((0, d)), np.zeros(0), 0

    def ask(self, q: int = 1) -> Floats:
        """The next q points (q, d): of the Sobol sequence until `start` were asked for and one of them has a value."""
        if q < 1:
            raise UsageError(f"ask(q={q}): at least one point, ask(q=1)")
        self.asked += q
        d = len(self.low)
        if self.asked <= self.start or not np.isfinite(self.ys).any():
            unit = sobol(self.asked, d, self.seed)[-q:]
        else:
            x = torch.as_tensor((self.xs - self.low) / self.width)
            unit = suggest(
                self.surrogate, x, torch.as_tensor(self.ys), q, round_seed(self.seed, self.asked - q)
            ).numpy()
        return np.asarray(self.low + unit * self.width)

    def tell(self, x: ArrayLike, y: ArrayLike | float) -> None:
        """Values y (q,) at x (q, d), or one value y at x (d,)."""
        points, values = np.atleast_2d(np.asarray(x, dtype=float)), np.atleast_1d(np.asarray(y, dtype=float))
        if points.shape != (len(values), len(self.low)):
            raise UsageError(
                f"tell(x of {points.shape}, y of {values.shape}): x is (q, {len(self.low)}) and y (q,), tell(x, f(x))"
            )
        self.xs, self.ys = np.vstack([self.xs, points]), np.concatenate([self.ys, values])

    @property
    def best(self) -> tuple[Floats, float]:
        """The lowest value told and its point (d,); NaN before there is one."""
        if not np.isfinite(self.ys).any():
            return np.full(len(self.low), math.nan), math.nan
        at = int(np.argmin(np.where(np.isfinite(self.ys), self.ys, np.inf)))
        return self.xs[at], float(self.ys[at])


def minimise(
    function: Callable[[Floats], float],
    bounds: Bounds,
    evaluations: int | Budget,
    surrogate: Surrogate | None = None,
    seed: int = 0,
    start: int | None = None,
) -> Optimum:
    """Minimise a function of one point (d,) within bounds, by so many evaluations or within a Budget.

    An evaluation that raises or is not finite is kept as failed, with what it said, and the rest goes on. Ctrl-C stops
    and returns what was found. Raises UsageError for bounds that are none.
    """
    budget = Budget(evaluations=evaluations) if isinstance(evaluations, int) else evaluations
    if not {"evaluations", "seconds"} & budget.caps().keys():
        raise UsageError(f"minimise(..., {budget}): it counts evaluations and seconds, Budget(evaluations=40)")
    optimiser = BayesianOptimiser(bounds, surrogate, seed, start)
    ledger, errors = Ledger(budget, reserve=0.0), {}
    ledger.begin()
    try:
        while ledger.pay(Cost(evaluations=1), "function"):
            point = optimiser.ask()[0]
            value, said = _value(function, point)
            if said:
                errors[len(optimiser.ys)] = said
            optimiser.tell(point, value)
    except KeyboardInterrupt:
        ledger.cancel()
    ledger.end()
    x, y = optimiser.best
    return Optimum(x, y, optimiser.xs, optimiser.ys, errors, ledger.spent, ledger.refused or "cancelled")


def minimise_many(
    function: Callable[[Tensor], Tensor],
    dimensions: int,
    evaluations: int,
    surrogate: Surrogate,
    seeds: Sequence[int],
    start: int = 10,
    q: int = 1,
) -> tuple[Tensor, Tensor]:
    """Runs of `minimise` for many seeds at once: points (seeds, evaluations, d) of the unit cube, and their values.

    function: values (...) of points (..., d). All runs' surrogates are one batch, so that ten cost little more than
    one; random numbers beyond the Sobol start are common to the runs. q: how many points are chosen together.
    """
    x = torch.stack([torch.as_tensor(sobol(start, dimensions, seed)) for seed in seeds])
    y = function(x)
    for n in range(start, evaluations, q):
        new = suggest(surrogate, x, y, min(q, evaluations - n), round_seed(seeds[0], n))
        x, y = torch.cat([x, new], 1), torch.cat([y, function(new)], 1)
    return x, y


def round_seed(seed: int, n: int) -> int:
    """The seed of the round after n points."""
    return seed * 100_003 + n


def _box(bounds: Bounds) -> tuple[Floats, Floats]:
    box = np.asarray(bounds, dtype=float)
    if (
        box.ndim != 2
        or box.shape[1] != 2
        or not len(box)
        or not np.isfinite(box).all()
        or (box[:, 0] >= box[:, 1]).any()
    ):
        raise UsageError(
            f"bounds={np.asarray(bounds).tolist()}: one (low, high) for each input, bounds=[(-5, 10), (0, 15)]"
        )
    return box[:, 0], box[:, 1] - box[:, 0]


def _value(function: Callable[[Floats], float], point: Floats) -> tuple[float, str]:
    """The function's value, and what went wrong."""
    try:
        value = float(function(point))
    except Exception as error:  # the user's code: whatever it raises, the other evaluations stand
        return math.nan, f"{type(error).__name__}: {error}"
    return (value, "") if math.isfinite(value) else (math.nan, f"returned {value}")
