"""A factor on how many of some binary variables are 1, whose messages cost the square of its size and are exact.

Source: Tarlow et al., "Fast exact inference for recursive cardinality models" (UAI 2012); here by forward and backward
sums along a chain, for many factors of one size at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from anystep.errors import UsageError

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """m factors of one size. members: (m, size), the variables of each. log_weight: (m, size + 1), the logarithm of
    the factor at each count; minus infinity where it is impossible."""

    members: Index
    log_weight: Floats

    def messages(self, log_odds: Floats) -> Floats:
        """To each member (m, size), the log odds of its being 1 that the factor and the other members give it.

        log_odds: (m, size), what each member says of itself. Infinite where the count decides a member.
        """
        m, size = log_odds.shape
        one = expit(log_odds)
        before = np.zeros((size, m, size + 1))
        before[0, :, 0] = 1.0  # of the members before each: the chance of every count
        for at in range(size - 1):
            p = one[:, at, None]
            before[at + 1] = (1 - p) * before[at]
            before[at + 1, :, 1:] += p * before[at, :, :-1]
        top = self.log_weight.max(-1, keepdims=True)
        after = np.exp(self.log_weight - top)  # for each count so far: the weight of how it can end
        found = np.empty((m, size))
        with np.errstate(divide="ignore"):
            for at in range(size - 1, -1, -1):
                if_zero = (before[at] * after).sum(-1)
                if_one = (before[at][:, :-1] * after[:, 1:]).sum(-1)
                found[:, at] = np.log(if_one) - np.log(if_zero)
                p = one[:, at, None]
                after[:, :-1] = (1 - p) * after[:, :-1] + p * after[:, 1:]
                after[:, -1] *= (1 - p)[:, 0]
                after /= np.maximum(after.max(-1, keepdims=True), np.finfo(float).tiny)
        return found


def counted(bags: Index, counts: Floats, penalty: float | None) -> list[Counts]:
    """The factors of bags, grouped by size.

    bags: (n,), the number of each variable's bag, from 0. counts: (bags,), how many of each are 1. penalty: weight
    exp(-penalty * (count - wanted)^2); None allows the count that was told and no other. Raises UsageError for counts
    that a bag cannot have, and bags without members.
    """
    sizes = np.bincount(bags, minlength=len(counts))
    if len(sizes) != len(counts) or (sizes == 0).any():
        raise UsageError(f"{len(counts)} counts for bags {sorted(set(bags.tolist()))[:5]}...: one for each, from 0.")
    if ((counts < 0) | (counts > sizes)).any() or (penalty is None and (counts != np.round(counts)).any()):
        raise UsageError("a bag's count is a whole number between 0 and its size; counts=proportions * sizes.")
    order, starts = np.argsort(bags, kind="stable"), np.concatenate([[0], np.cumsum(sizes)])
    found = []
    for size in np.unique(sizes).tolist():
        which = np.flatnonzero(sizes == size)
        members = np.stack([order[starts[b] : starts[b] + size] for b in which.tolist()])
        apart = np.arange(size + 1) - counts[which, None]
        weight = np.where(apart == 0, 0.0, -np.inf) if penalty is None else -penalty * apart**2
        found.append(Counts(members, weight))
    return found


def log_evidence(factor: Counts, log_odds: Floats) -> Floats:
    """(m,), the logarithm of each factor's mean weight when its members are independent with these log odds."""
    one = expit(log_odds)
    chance = np.zeros((len(one), one.shape[1] + 1))
    chance[:, 0] = 1.0
    for at in range(one.shape[1]):
        p = one[:, at, None]
        moved = (1 - p) * chance
        moved[:, 1:] += p * chance[:, :-1]
        chance = moved
    with np.errstate(divide="ignore"):
        return np.asarray(logsumexp(np.log(chance) + factor.log_weight, axis=-1))
