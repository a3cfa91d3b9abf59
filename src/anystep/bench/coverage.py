"""How many problems would more samples solve? Coverage against their number, and two laws that carry it further.

Coverage at k is the share of problems of which one of k samples is right. Up to as many samples as there are it is
estimated without bias (`curve`); beyond, only a law can say, and a problem that was never solved may be one in a
thousand or out of reach.

Sources: Brown et al., "Large Language Monkeys" (2024), arXiv 2407.21787, for the exponentiated power law; Skellam, "A
Probability Distribution Derived from the Binomial Distribution by Regarding the Probability of Success as Variable"
(1948), for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anystep.bench.pass_at_k import Counts, pass_at
from anystep.errors import UsageError
from anystep.process import Floats


def curve(counts: Iterable[Counts], ks: Sequence[int]) -> Floats:
    """Coverage at each k, (ks,): the mean of `pass_at` over problems, each given as (samples, right ones).

    UsageError where a problem has fewer than k samples: what more would solve is not in them.
    """
    every = list(counts)
    if not every:
        raise UsageError("curve(counts, ks) needs problems, as in curve([(64, 3), (64, 0)], ks=(1, 2, 4)).")
    return np.array([np.mean([pass_at(n, right, k) for n, right in every]) for k in ks])


def spread(most: int, points: int = 24) -> tuple[int, ...]:
    """Whole numbers from 1 to `most`, evenly spaced in their logarithm."""
    return tuple(sorted(set(np.rint(np.geomspace(1, most, points)).astype(int).tolist())))


@dataclass(frozen=True)
class PowerLaw:
    """Coverage exp(a k^b), a and b below 0: it tends to one, so it suits sets without problems out of reach."""

    a: float
    b: float

    def at(self, k: ArrayLike) -> Floats:
        return np.asarray(np.exp(self.a * np.asarray(k, dtype=np.float64) ** self.b))


@dataclass(frozen=True)
class BetaBinomial:
    """Coverage 1 - B(a, b + k) / B(a, b): each problem has a chance of its own, drawn from Beta(a, b)."""

    a: float
    b: float

    def at(self, k: ArrayLike) -> Floats:
        from scipy.special import betaln

        far = betaln(self.a, self.b + np.asarray(k, dtype=np.float64))
        return np.asarray(-np.expm1(far - betaln(self.a, self.b)))


def power_law(ks: ArrayLike, coverage: ArrayLike) -> PowerLaw:
    """The exponentiated power law of least squares through coverage (n,) at ks (n,), two or more.

    Empirical: it often predicts four times as many samples to a few points, and on some sets it fails. UsageError where
    nothing was solved, for then no law can be told.
    """
    from scipy.optimize import least_squares

    k, c = np.asarray(ks, dtype=np.float64), np.asarray(coverage, dtype=np.float64)
    if k.shape != c.shape or len(k) < 2 or not ((c >= 0) & (c <= 1)).all() or (k < 1).any():
        raise UsageError(
            "power_law(ks, coverage): as many shares as numbers of samples, such as (1, 2, 4), (.2, .3, .4)."
        )
    if not c.any():
        raise UsageError("power_law: no problem was solved, so nothing tells how many more samples would.")
    inside = np.clip(c, 1e-9, 1 - 1e-9)
    slope, height = np.polyfit(np.log(k), np.log(-np.log(inside)), 1)
    begin = np.clip([height, np.log(max(-slope, 1e-6))], -20, 20)

    def apart(x: Floats) -> Floats:  # a = -exp(x0) and b = -exp(x1) keep their signs
        return np.asarray(np.exp(-np.exp(x[0]) * k ** -np.exp(x[1])) - c)

    found = least_squares(apart, begin).x
    return PowerLaw(-float(np.exp(found[0])), -float(np.exp(found[1])))


def beta_binomial(counts: Iterable[Counts]) -> BetaBinomial:
    """The likeliest Beta law of the problems' chances, given (samples, right ones) of each: the power law's competitor.

    UsageError where all samples are wrong, or all right.
    """
    from scipy.optimize import minimize
    from scipy.special import betaln

    every = np.array(list(counts), dtype=np.float64)
    if every.ndim != 2 or not 0 < every[:, 1].sum() < every[:, 0].sum():
        raise UsageError("beta_binomial(counts): problems as (samples, right ones), some right and some wrong.")
    n, right = every[:, 0], every[:, 1]

    def unlikely(x: Floats) -> float:
        a, b = np.exp(x)
        return -float((betaln(a + right, b + n - right) - betaln(a, b)).sum())

    share = right.sum() / n.sum()
    begin = np.log([max(share, 1e-3), max(1 - share, 1e-3)])
    found = minimize(unlikely, begin, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4_000}).x
    return BetaBinomial(*(float(v) for v in np.exp(np.clip(found, -12, 12))))
