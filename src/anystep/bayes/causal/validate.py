"""Does the dropout model hold? Whether anything but a variable's own value decides on its dropouts.

Rows in which the conditioned variables W are not zero are as they would be without dropouts. There

    value      Z = b'W + noise, standard deviation s          P(dropped | Z, W) = Phi(t - k Z - g'W)

and the dropout model says g = 0. Z is not seen where it dropped out, and still both sides show: in how dropouts
depend on W, and in how W bends what is left of Z. Twice the gain in log-likelihood from a free g is chi-squared under
the model. k = 0 is dropping out at random, a large k truncation; a logistic law is near enough.

The likelihood is Heckman's, of selection on the outcome (Econometrica 1979). That the dropout model can be tested is
from Dai et al. 2024 (arXiv 2403.15500); this test of it is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from anystep.bayes.causal.independence import Floats, Independence
from anystep.errors import UsageError

STEEPEST = 30.0  # k at most, in standard deviations of Z: truncation, as far as any data tell


@dataclass(frozen=True)
class DropoutCheck:
    """p: of each variable, 1 where it could not be tested. `flagged`: whether any is below level / variables."""

    p: Floats
    level: float

    @property
    def flagged(self) -> bool:
        return bool(self.p.min() < self.level / len(self.p))


def dropout_check(data: Any, level: float = 0.05, neighbours: int = 2, rows: int = 4_000) -> DropoutCheck:
    """Test for each variable that its dropouts have no other cause than its value.

    data: (rows, variables), 0 where a value dropped out; linear and Gaussian otherwise, so take logarithms first.
    level: the chance meant, over all variables (Bonferroni), to flag data that follow the model; at 0.01, 0.044 was
    measured (4 of 90). neighbours: how many variables W to condition on, the nearest. rows: at most that many of those
    left, evenly spaced, for speed. A variable is not tested if it drops out in under 50 of them or stays in under 50.
    Raises UsageError for data that are no finite table.
    """
    if not 0 < level < 1 or neighbours < 1:
        raise UsageError(f"dropout_check(data, level={level}, neighbours={neighbours}): 0.05 and 2, say.")
    tests = Independence(data, delete="tested")
    near = np.abs(tests.z())
    found = np.ones(tests.variables)
    for v in range(tests.variables):
        others = np.argsort(-near[v], kind="stable")
        w = [int(u) for u in others if u != v][:neighbours]
        kept = np.flatnonzero(tests.there[:, w].all(1))
        kept = kept[np.linspace(0, len(kept) - 1, min(rows, len(kept))).astype(int)] if len(kept) else kept
        gone = ~tests.there[kept, v]
        if min(gone.sum(), (~gone).sum()) >= 50:
            found[v] = stats.chi2.sf(gained(tests.data[kept, v], tests.data[kept][:, w]), len(w))
    return DropoutCheck(found, level)


def gained(z: Floats, w: Floats) -> float:
    """Twice the log-likelihood that a free g gains. z: (rows,), 0 if dropped. w: (rows, k), the conditioned."""
    gone = z == 0
    z = np.where(gone, 0, (z - z[~gone].mean()) / z[~gone].std())
    w = (w - w.mean(0)) / w.std(0)
    k = w.shape[1]
    slope = np.linalg.lstsq(np.column_stack([np.ones(len(w)), w])[~gone], z[~gone], rcond=None)[0]
    bounds = [(None, None)] * (k + 1) + [(-4, 3), (None, None), (-STEEPEST, STEEPEST)]
    best, at = np.inf, np.zeros(k + 4)
    rate = special.ndtri(gone.mean())
    for steep in (0.0, 1.0, -1.0, 10.0):  # the likelihood may have several peaks
        start = np.r_[slope, -0.3, rate - steep * (1 if steep > 5 else 0), steep]
        fit = optimize.minimize(_loss, start, (z, w, gone, False), jac=True, bounds=bounds, method="L-BFGS-B")
        if fit.fun < best:
            best, at = fit.fun, fit.x
    free = np.inf
    for start in (np.r_[at, np.zeros(k)], np.r_[slope, -0.3, rate, 0.0, np.zeros(k)]):
        fit = optimize.minimize(
            _loss, start, (z, w, gone, True), jac=True, bounds=[*bounds, *[(None, None)] * k], method="L-BFGS-B"
        )
        free = min(free, float(fit.fun))
    return max(2 * (best - free), 0.0)


def _loss(theta: Floats, z: Floats, w: Floats, gone: Any, free: bool) -> tuple[float, Floats]:
    """Minus the log-likelihood and its gradient. theta: intercept and b, log s, t, k, and g if it is free."""
    k = w.shape[1]
    mean, s, t, steep = theta[0] + w @ theta[1 : k + 1], np.exp(theta[k + 1]), theta[k + 2], theta[k + 3]
    side = w @ theta[k + 4 :] if free else np.zeros(len(w))
    rest = (z - mean) / s
    shrink = 1 / np.sqrt(1 + (steep * s) ** 2)
    index = np.where(gone, (t - steep * mean - side) * shrink, -(t - steep * z - side))
    logs = special.log_ndtr(index)
    mills = np.exp(-(index**2) / 2 - logs) / np.sqrt(2 * np.pi)
    value = logs.sum() + np.where(gone, 0, -np.log(s) - rest**2 / 2).sum()
    by_mean = np.where(gone, -steep * shrink * mills, rest / s)
    by_t = np.where(gone, shrink, -1) * mills
    by_steep = np.where(gone, -mean * shrink - index * steep * s**2 * shrink**2, z) * mills
    by_s = np.where(gone, -index * (steep * s * shrink) ** 2 * mills, rest**2 - 1)
    grad = np.r_[by_mean.sum(), w.T @ by_mean, by_s.sum(), by_t.sum(), by_steep.sum(), (-w.T @ by_t) if free else []]
    return -float(value), -grad
