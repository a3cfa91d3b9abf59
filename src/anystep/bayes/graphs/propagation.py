"""Sum-product belief propagation over binary variables with counts of groups and ties of pairs.

Source: Pearl, "Probabilistic Reasoning in Intelligent Systems" (1988); Kschischang, Frey and Loeliger (2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from anystep.bayes.graphs.counts import Counts
from anystep.errors import UsageError

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
CLIP = 30.0  # log odds past which a double hardly tells a probability from 1


@dataclass(frozen=True)
class Ties:
    """Pairs that would rather be equal. ends: (pairs, 2), variables. strength: (pairs,): the factor is 1 where they are
    equal and exp(-strength) where not, so below 0 they would rather differ."""

    ends: Index
    strength: Floats


@dataclass(frozen=True)
class Beliefs:
    """marginals: (n,), each variable's probability of being 1. iterations: how many were run. change: the largest of
    any marginal in the last one."""

    marginals: Floats
    iterations: int
    change: float


def belief_propagation(
    n: int,
    counts: Sequence[Counts],
    ties: Ties | None = None,
    log_odds: Floats | None = None,
    iterations: int = 100,
    damping: float = 0.5,
    tolerance: float = 1e-6,
) -> Beliefs:
    """Marginals of P(y) ~ product of count factors, ties and each variable's own odds, over y in {0, 1}^n.

    Exact where variables and factors form no loop, after as many iterations as the longest path has factors (without
    damping); with loops an approximation without a bound, which may not settle: read `change`.

    counts: from `counted`; ties: pairs; log_odds: (n,), each variable's own, 0 by default. iterations: at most.
    damping: the share of the old message that is kept, in [0, 1). tolerance: stop when no marginal moves by more.
    One iteration costs the sum over count factors of their size squared, and the number of pairs.
    """
    if not 0 <= damping < 1 or iterations < 1:
        raise UsageError(f"damping={damping!r}, iterations={iterations!r}: damping in [0, 1), one iteration or more.")
    own = np.zeros(n) if log_odds is None else np.asarray(log_odds, dtype=np.float64)
    ends = np.zeros((0, 2), np.int64) if ties is None else ties.ends
    if own.shape != (n,) or (len(ends) and (ends.min() < 0 or ends.max() >= n)):
        raise UsageError(f"log_odds of shape {own.shape}, ties up to {ends.max(initial=0)}: there are {n} variables.")
    source, goal = np.concatenate([ends, ends[:, ::-1]]).T  # every pair speaks both ways
    back = np.roll(np.arange(2 * len(ends)), len(ends))
    log_w = -np.tile(ties.strength, 2) if ties is not None else np.zeros(0)
    told, tied = [np.zeros(factor.members.shape) for factor in counts], np.zeros(len(source))
    total, change, turn = own, np.inf, 0
    while turn < iterations and change > tolerance:
        turn += 1
        asked = [_clipped(total[f.members] - message) for f, message in zip(counts, told, strict=True)]
        without = _clipped(total[source] - tied[back])
        for at, factor in enumerate(counts):
            told[at] = damping * told[at] + (1 - damping) * _clipped(factor.messages(asked[at]))
        tied = damping * tied + (1 - damping) * _through(without, log_w)
        before, total = total, own + np.bincount(goal, tied, n)
        for factor, message in zip(counts, told, strict=True):
            np.add.at(total, factor.members, message)
        change = float(np.abs(expit(_clipped(total)) - expit(_clipped(before))).max(initial=0.0))
    return Beliefs(expit(_clipped(total)), turn, change)


def _clipped(log_odds: Floats) -> Floats:
    return np.clip(log_odds, -CLIP, CLIP)


def _through(log_odds: Floats, log_w: Floats) -> Floats:
    """What one end of a tie says to the other: log (w + e^v) / (1 + w e^v)."""
    return np.asarray(np.logaddexp(log_w, log_odds) - np.logaddexp(0.0, log_w + log_odds))
