"""Strengths from comparisons: the Bradley-Terry model, by maximum likelihood.

P(i beats j) = 1 / (1 + exp(s_j - s_i)). Sources: Bradley and Terry, "Rank Analysis of Incomplete Block Designs" (1952);
Ford, "Solution of a Ranking Problem from Binary Comparisons" (1957), for when a maximum exists; Hunter, "MM Algorithms
for Generalized Bradley-Terry Models" (2004).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.errors import UsageError
from anystep.process import Floats

ROUNDS, NEAR = 200, 1e-12


def bradley_terry(wins: ArrayLike, prior: float = 0.0) -> Floats:
    """Strengths (n,) in log-odds, of mean 0, from wins (n, n): `wins[i, j]` is how often i beat j, fractions allowed (a
    tie is half a win for each, a probability counts as itself); the diagonal is not read.

    The maximum of the likelihood, by Newton's method with halved steps. prior: so many games of each, all drawn,
    against one more player of strength 0, which pulls strengths together and makes the maximum exist. Raises UsageError
    for what is no table of wins, and where there is no maximum: some never beat any of the others, or never met them.
    """
    table = np.array(wins, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not np.isfinite(table).all() or (table < 0).any():
        raise UsageError("bradley_terry(wins): a square table of how often each beat each, as [[0, 3], [1, 0]].")
    if isinstance(prior, bool) or not isinstance(prior, (int, float)) or not 0 <= prior < np.inf:
        raise UsageError(f"bradley_terry(wins, prior={prior!r}): drawn games, 0 or more.")
    np.fill_diagonal(table, 0.0)
    if not len(table):
        return np.zeros(0)
    if prior == 0 and not _connected(table > 0):
        raise UsageError(
            "bradley_terry(wins): some never beat any of the others, or never met them, so their strengths have no "
            "maximum; give a prior, such as bradley_terry(wins, prior=1.0)."
        )
    strengths = np.zeros(len(table))
    for _ in range(ROUNDS):
        step = _newton(table, prior, strengths)
        now, size = _likelihood(table, prior, strengths), 1.0
        while _likelihood(table, prior, strengths + size * step) < now - NEAR and size > NEAR:
            size /= 2
        strengths = strengths + size * step
        if np.abs(step).max() < NEAR:
            break
    return np.asarray(strengths - strengths.mean())


def _likelihood(wins: Floats, prior: float, s: Floats) -> float:
    """The logarithm of it, up to a constant."""
    games = -np.logaddexp(0.0, s[None, :] - s[:, None])
    return float((wins * games).sum() - prior / 2 * (np.logaddexp(0.0, s) + np.logaddexp(0.0, -s)).sum())


def _newton(wins: Floats, prior: float, s: Floats) -> Floats:
    p, q = 1 / (1 + np.exp(s[None, :] - s[:, None])), 1 / (1 + np.exp(-s))
    games = wins + wins.T
    slope = (wins - games * p).sum(1) + prior * (0.5 - q)
    bend = games * p * (1 - p)
    curve = np.diag(bend.sum(1) + prior * q * (1 - q)) - bend
    if prior == 0:
        curve = curve + 1.0 / len(s)  # strengths are told apart, not where they stand: the step has mean 0
    return np.asarray(np.linalg.solve(curve, slope))


def _connected(beat: NDArray[np.bool_]) -> bool:
    """Whether everyone beat everyone else, if need be by way of others."""
    reach: Any = beat | np.eye(len(beat), dtype=bool)
    for _ in range(len(beat).bit_length()):
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    return bool(reach.all())
