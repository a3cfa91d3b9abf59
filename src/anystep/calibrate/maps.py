"""From a score to the probability that it is right: maps fitted on labelled scores, frozen, printable, saved as JSON.

All maps rise, so they change no ranking but may tie: a score that ranks right below wrong is answered by the base rate
and not turned round. They hold for scores drawn as the labelled ones were; see `calibrate.winner` for those that a
search has selected.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from anystep.errors import UsageError
from anystep.process import Floats

How = Literal["platt", "temperature", "beta", "isotonic"]
LEAST = 10  # right ones, and wrong ones, that a map is fitted on
EDGE = 1e-9  # probabilities are read no closer to 0 and 1 than this, where log-odds are taken


class Map(ABC):
    """A rising map from scores (n,) to probabilities (n,); NaN stays NaN."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, scores: ArrayLike) -> Floats: ...

    def as_dict(self) -> dict[str, Any]:
        """As plain data; `map_of` is the inverse."""
        return {"map": self.kind, **asdict(self)}  # type: ignore[call-overload]

    def json(self) -> str:
        return json.dumps(self.as_dict())


@dataclass(frozen=True)
class Platt(Map):
    """sigmoid(slope * x + intercept), x the score's log-odds where `odds`, else the score itself."""

    slope: float
    intercept: float
    odds: bool = True
    kind = "platt"

    def __call__(self, scores: ArrayLike) -> Floats:
        return _sigmoid(self.slope * _read(scores, self.odds) + self.intercept)


@dataclass(frozen=True)
class Beta(Map):
    """sigmoid(a log p - b log(1 - p) + c): unlike Platt's, it may bend the two ends differently."""

    a: float
    b: float
    c: float
    kind = "beta"

    def __call__(self, scores: ArrayLike) -> Floats:
        low, high = _ends(scores)
        return _sigmoid(self.a * low + self.b * high + self.c)


@dataclass(frozen=True)
class Isotonic(Map):
    """Straight lines between the points of a rising step function, level beyond them."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    kind = "isotonic"

    def __call__(self, scores: ArrayLike) -> Floats:
        return np.asarray(np.interp(np.asarray(scores, dtype=np.float64), self.x, self.y))

    def __repr__(self) -> str:
        return f"Isotonic({len(self.x)} points, {self.y[0]:.3f} to {self.y[-1]:.3f})"


def platt(scores: ArrayLike, labels: ArrayLike, odds: bool | None = None) -> Platt:
    """Logistic regression of labels (n,) of 0 and 1 on scores (n,), or on their log-odds where `odds`: by default where
    all scores lie in [0, 1].

    Targets are drawn in from 0 and 1 by Platt's rule, so that separable labels give a finite slope. Raises UsageError
    with fewer than 10 right or 10 wrong labels. Source: Platt, "Probabilistic outputs for support vector machines"
    (1999).
    """
    x, y = _checked("platt", scores, labels)
    odds = bool(x.min() >= 0 and x.max() <= 1) if odds is None else odds
    slope, intercept = _logistic(_read(x, odds)[:, None], y)
    return Platt(slope, intercept, odds)


def temperature(scores: ArrayLike, labels: ArrayLike) -> Platt:
    """Platt's map with no intercept: the log-odds of probabilities (n,) divided by one temperature, 1 / slope.

    It cannot mend scores that are too high throughout. Source: Guo, Pleiss, Sun and Weinberger, "On calibration of
    modern neural networks" (2017).
    """
    x, y = _checked("temperature", scores, labels, bounded=True)
    (slope,) = _logistic(_read(x, True)[:, None], y, intercept=False)
    return Platt(slope, 0.0, True)


def beta(scores: ArrayLike, labels: ArrayLike) -> Beta:
    """Logistic regression on log p and -log(1 - p) of probabilities (n,), both with a coefficient of at least 0.

    Source: Kull, Silva Filho and Flach, "Beta calibration" (2017).
    """
    x, y = _checked("beta", scores, labels, bounded=True)
    a, b, c = _logistic(np.stack(_ends(x), 1), y)
    return Beta(a, b, c)


def isotonic(scores: ArrayLike, labels: ArrayLike) -> Isotonic:
    """The rising function of the scores (n,) with the least squared error to the labels (n,): no shape is assumed, and
    some hundred labels are wanted. It says 0 or 1 where all labels at an end agree.

    Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates" (2002).
    """
    x, y = _checked("isotonic", scores, labels)
    values, at = np.unique(x, return_inverse=True)
    n = np.bincount(at).astype(np.float64)
    level = pooled(values, np.bincount(at, y) / n, n)
    flat = np.concatenate([[False], (level[1:-1] == level[:-2]) & (level[1:-1] == level[2:]), [False]])
    keep = ~flat[: len(level)] if len(level) > 1 else np.array([True])
    return Isotonic(tuple(values[keep].tolist()), tuple(level[keep].tolist()))


def pooled(values: Floats, means: Floats, weights: Floats) -> Floats:
    """The rising sequence (k,) nearest to `means` at rising `values`, weighted: pool-adjacent-violators."""
    from scipy.optimize import isotonic_regression

    return np.clip(np.asarray(isotonic_regression(means, weights=weights).x), 0.0, 1.0) if len(values) else means


FITS = {"platt": platt, "temperature": temperature, "beta": beta, "isotonic": isotonic}


def fitted(how: str, scores: ArrayLike, labels: ArrayLike) -> Map:
    """The map called `how`, fitted; UsageError where there is none of that name."""
    if how not in FITS:
        raise UsageError(f"how={how!r}: a map is one of {', '.join(FITS)}.")
    return FITS[how](scores, labels)


def map_of(record: str | dict[str, Any]) -> Map:
    """A map from its JSON text or plain data. Raises UsageError for what is none."""
    try:
        data = dict(json.loads(record) if isinstance(record, str) else record)
        kind = data.pop("map")
        if kind == "isotonic":
            data = {k: tuple(map(float, v)) for k, v in data.items()}
            x, y = data["x"], data["y"]
            if len(x) != len(y) or not x or list(x) != sorted(set(x)) or list(y) != sorted(y):
                raise ValueError("points do not rise")
        return {"platt": Platt, "beta": Beta, "isotonic": Isotonic}[kind](**data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{record!r:.60} is no saved map ({error}); save one with map.json().") from None


def _sigmoid(z: Floats) -> Floats:
    """1 / (1 + exp(-z)) without overflow."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def _read(scores: ArrayLike, odds: bool) -> Floats:
    x = np.asarray(scores, dtype=np.float64)
    if not odds:
        return x
    p = np.clip(x, EDGE, 1 - EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def _ends(scores: ArrayLike) -> tuple[Floats, Floats]:
    p = np.clip(np.asarray(scores, dtype=np.float64), EDGE, 1 - EDGE)
    return np.log(p), -np.log1p(-p)


def _checked(how: str, scores: ArrayLike, labels: ArrayLike, bounded: bool = False) -> tuple[Floats, Floats]:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not np.isin(y, (0.0, 1.0)).all():
        raise UsageError(f"{how}(scores, labels): {x.shape} scores need as many labels, each 0 or 1; got {y.shape}.")
    x, y = x[~np.isnan(x)], y[~np.isnan(x)]
    right, wrong = int(y.sum()), int(len(y) - y.sum())
    if min(right, wrong) < LEAST:
        raise UsageError(
            f"{how}: {right} right and {wrong} wrong labels are too few to calibrate on: give scores and labels of "
            f"at least {LEAST} of each."
        )
    if bounded and (x.min() < 0 or x.max() > 1):
        raise UsageError(f"{how} maps probabilities, and scores go from {x.min():g} to {x.max():g}; use how='platt'.")
    if not np.isfinite(x).all():
        raise UsageError(f"{how}: a score is infinite; clip the scores first.")
    return x, y


def _logistic(features: Floats, y: Floats, intercept: bool = True) -> tuple[float, ...]:
    """Coefficients of `features` (n, k), none below 0, and the intercept: maximum likelihood at Platt's targets."""
    n, k = features.shape
    right = y.sum()
    target = np.where(y > 0, (right + 1) / (right + 2), 1 / (n - right + 2))
    active, found = list(range(k)), np.zeros(k + intercept)
    while True:
        columns = [features[:, i] for i in active] + ([np.ones(n)] if intercept else [])
        weights = _newton(np.stack(columns, 1), target) if columns else np.zeros(0)
        negative = [i for i, w in zip(active, weights, strict=False) if w < 0]
        if not negative:
            break
        active = [i for i in active if i != negative[0]]  # a rising map: the most useless feature goes
    found[active] = weights[: len(active)]
    if intercept:
        found[k] = weights[-1]
    return tuple(found.tolist())


def _newton(x: Floats, target: Floats) -> Floats:
    """Logistic regression by Newton's steps, halved while they do not lower the loss; columns are scaled first."""
    scale = np.maximum(np.abs(x).max(0), 1e-12)
    x, w = x / scale, np.zeros(x.shape[1])

    def loss(w: Floats) -> float:
        z = x @ w  # of a target t: t log(1 + exp(-z)) + (1 - t) log(1 + exp(z))
        return float((np.logaddexp(0.0, z) - target * z).mean())

    now = loss(w)
    for _ in range(100):
        p = _sigmoid(x @ w)
        gradient = x.T @ (p - target) / len(x)
        curve = (x * (p * (1 - p))[:, None]).T @ x / len(x) + 1e-12 * np.eye(len(w))
        step, size = np.linalg.solve(curve, gradient), 1.0
        while size > 1e-8 and not loss(w - size * step) <= now:
            size /= 2
        w, before = w - size * step, now
        now = loss(w)
        if math.isclose(before, now, rel_tol=1e-13, abs_tol=1e-15):
            break
    return np.asarray(w / scale)
