"""The plain decisions: best score, first finished, and votes. Only finished states are chosen from.

A decision's `support` is its own share of votes or weight, not a calibrated confidence.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict
from anystep.process import Floats


def _best_reward(population: Population) -> Verdict:
    scores = np.where(population.done, population.scores, np.nan)
    if np.isnan(scores).all():
        return _first_finished(population)
    return Verdict(int(np.nanargmax(scores)))


def vote(population: Population, votes: Floats) -> Verdict:
    """The answer with the most votes, shown by its first state that voted; a tie goes to the answer that came first.

    votes: (n,), 0 or more, of the population's rows; a state without a vote, an answer or an end says nothing. Without
    any votes the first finished state answers.
    """
    totals: dict[Hashable, float] = {}
    for row, answer in enumerate(population.answers or ()):
        if population.done[row] and answer is not None:
            totals[answer] = totals.get(answer, 0.0) + float(votes[row])
    whole = sum(totals.values())
    if not whole > 0:
        return _first_finished(population)
    winner = max(totals, key=lambda a: totals[a])
    rows = [i for i, a in enumerate(population.answers or ()) if a == winner and population.done[i] and votes[i] > 0]
    return Verdict(rows[0], totals[winner] / whole)


def _majority(population: Population) -> Verdict:
    return vote(population, np.ones(len(population)))


def _weighted_majority(population: Population) -> Verdict:
    return vote(population, population.weights)


def _reward_majority(population: Population) -> Verdict:
    """Votes of the size of the reward; unscored states have no vote."""
    return vote(population, np.maximum(np.nan_to_num(population.scores), 0.0))


@dataclass(frozen=True)
class _MajorityAbove:
    """A value, so that two decisions of one threshold are equal."""

    threshold: float

    def __call__(self, population: Population) -> Verdict:
        passed = population.done & (np.nan_to_num(population.scores, nan=-np.inf) >= self.threshold)
        said = [passed[row] and answer is not None for row, answer in enumerate(population.answers or ())]
        return vote(population, np.array(said, dtype=np.float64)) if any(said) else _majority(population)


def _first_finished(population: Population) -> Verdict:
    done: NDArray[np.int64] = np.flatnonzero(population.done)
    return Verdict(int(done[0]) if len(done) else None)


best_reward = Decision("best_reward", _best_reward, scores=True)
"""The finished state with the highest score. Picks a reward's errors when there are many to pick from."""

majority = Decision("majority", _majority)
"""The answer that most finished states give, one vote each."""

weighted_majority = Decision("weighted_majority", _weighted_majority)
"""The answer with the largest total weight: on a particle filter's, the mode of the posterior over answers."""

reward_majority = Decision("reward_majority", _reward_majority, scores=True)
"""The answer with the largest total reward, for rewards in [0, 1]."""


def majority_above(threshold: float) -> Decision:
    """The answer that most finished states give whose score is `threshold` or more; if there is none, most of all.

    A verifier's veto: with a reward that is the least of a chain's steps, a chain votes if every step passes.
    Source: unanimity-plurality voting in Ling et al., "Deductive Verification of Chain-of-Thought Reasoning" (2023).
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or np.isnan(threshold):
        raise UsageError(f"majority_above(threshold={threshold!r}): a number, such as majority_above(0.5).")
    return Decision(f"majority_above({threshold})", _MajorityAbove(float(threshold)), scores=True)


first_finished = Decision("first_finished", _first_finished)
"""The finished state that comes first in the population."""
