"""Which paths are too improbable to speak? A mixture of two Weibull laws, fitted to the paths' own probabilities.

Source: Zhou et al., "Bridging Internal Probability and Self-Consistency for Effective and Efficient LLM Reasoning"
(2025), arXiv 2502.00511, and its later version arXiv 2510.15444: reasoning pruning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.process import Floats

FEWEST = 5  # paths; with fewer, five parameters have nothing to be fitted to
START = (0.5, 1.0, 1.0, 1.5, 2.0)  # weight of the first law, its shape and scale, the second's shape and scale
# Shapes end at 100: where a path is drawn several times, a spike there would have a likelihood without a maximum.
BOUNDS = ((0.2, 0.8), (0.01, 100.0), (0.01, None), (0.01, 100.0), (0.01, None))
MOST = 700.0  # exp of it is a float


def probable(logp: ArrayLike) -> NDArray[np.bool_]:
    """Which of n sampled paths are kept, by their log-probabilities (n,).

    A mixture of two Weibull laws is fitted to the probabilities by maximum likelihood; a path is dropped if it belongs
    rather to the law with the smaller mean and is less probable than the mean path. So the most probable is never
    dropped. All are kept where there are fewer than five, or all are equally probable. Probabilities are taken relative
    to the largest, so that their scale does not matter and none underflows.
    """
    x = np.asarray(logp, dtype=np.float64)
    keep = np.ones(len(x), dtype=bool)
    if len(x) < FEWEST or x.max() - x.min() < 1e-9:
        return keep
    x = x - x.max()
    return np.asarray((_posterior(x, _fitted(x)) >= 0.5) | (x >= _log_mean(x)))


def _log_mean(x: Floats) -> float:
    return float(np.logaddexp.reduce(x) - np.log(len(x)))


def _fitted(log_x: Floats) -> Floats:
    """The mixture's parameters (5,), in the order of `START`."""
    from scipy.optimize import minimize  # imported late: slow, and most decisions never fit anything

    found: Any = minimize(_loss, START, args=(log_x,), jac=True, method="L-BFGS-B", bounds=BOUNDS)
    return np.asarray(found.x, dtype=np.float64)


def _loss(theta: Floats, log_x: Floats) -> tuple[float, Floats]:
    """Minus the mean log-likelihood of exp(log_x), and its gradient."""
    w, k1, l1, k2, l2 = theta
    one, d_one = _weibull(log_x, k1, l1)
    two, d_two = _weibull(log_x, k2, l2)
    a, b = math.log(w) + one, math.log1p(-w) + two
    whole = np.logaddexp(a, b)
    r = np.exp(a - whole)
    gradient = [np.mean(r / w - (1 - r) / (1 - w)), *(r * d_one).mean(1), *((1 - r) * d_two).mean(1)]
    return -float(whole.mean()), -np.array(gradient)


def _weibull(log_x: Floats, k: float, scale: float) -> tuple[Floats, Floats]:
    """Log-density (n,) of a Weibull law at exp(log_x), and its gradient (2, n) by shape and scale."""
    z = log_x - math.log(scale)
    power = np.exp(np.minimum(k * z, MOST))
    density = math.log(k) - math.log(scale) + (k - 1) * z - power
    return density, np.stack([1 / k + z * (1 - power), -k / scale * (1 - power)])


def _posterior(log_x: Floats, theta: Floats) -> Floats:
    """How likely each path is to belong to the law with the larger mean."""
    w, k1, l1, k2, l2 = theta
    a, b = math.log(w) + _weibull(log_x, k1, l1)[0], math.log1p(-w) + _weibull(log_x, k2, l2)[0]
    first = math.log(l1) + math.lgamma(1 + 1 / k1) >= math.log(l2) + math.lgamma(1 + 1 / k2)
    mine, other = (a, b) if first else (b, a)
    return np.asarray(np.exp(mine - np.logaddexp(a, b)))
