"""A factor on how many of some binary variables are 1, whose messages cost the square of its size and are exact.

Source: Tarlow et al., "Fast exact inference for recursive cardinality models" (UAI 2012); here by forward and backward
sums along a chain, for many factors of one size at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        zero, one = -np.logaddexp(0.0, log_odds), -np.logaddexp(0.0, -log_odds)  # in logarithms, as all that follows:
        before = np.full((size, m, size + 1), -np.inf)  # members that are sure of what the count denies make it tiny
        before[0, :, 0] = 0.0  # of the members before each: the chance of every count
        for at in range(size - 1):
            before[at + 1] = _either(before[at], zero[:, at, None], one[:, at, None])
        after = self.log_weight.copy()  # for each count so far: the weight of how it can end
        found = np.empty((m, size))
        for at in range(size - 1, -1, -1):
            if_zero = np.logaddexp.reduce(before[at] + after, -1)
            if_one = np.logaddexp.reduce(before[at][:, :-1] + after[:, 1:], -1)
            found[:, at] = if_one - if_zero
            after = _either(after[:, ::-1], zero[:, at, None], one[:, at, None])[:, ::-1]
        return found


def _either(chance: Floats, zero: Floats, one: Floats) -> Floats:
    """log of: each count's chance if one more member is 0, and the count before's if it is 1."""
    moved = zero + chance
    moved[:, 1:] = np.logaddexp(moved[:, 1:], one + chance[:, :-1])
    return np.asarray(moved)


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
