"""Best of majority: only answers that are frequent enough may be submitted, and of those the reward's best are.

Source: "Best-of-Majority: Minimax-Optimal Strategy for Pass@k Inference Scaling" (ICLR 2026), arXiv 2510.03199.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict
from anystep.process import Floats
from anystep.search.decide.votes import first_finished

Of = Literal["max", "mean"]


@dataclass(frozen=True)
class Candidate:
    """One answer of a population: its share of the finished samples, its reward (minus infinity for none), the row that
    shows it, and where it was first said."""

    share: float
    reward: float
    row: int
    first: int


@dataclass(frozen=True)
class _BestOfMajority:
    k: int
    threshold: float
    of: Of

    def __call__(self, population: Population) -> Verdict:
        found = candidates(population, self.of)
        if not found:
            return first_finished(population)
        passed = sorted((c for c in found if c.share >= self.threshold), key=lambda c: (-c.reward, c.row))
        others = sorted((c for c in found if c.share < self.threshold), key=lambda c: (-c.share, c.first))
        chosen = (passed + others)[: self.k]
        return Verdict(chosen[0].row, chosen[0].share, submitted=tuple(c.row for c in chosen))


def candidates(population: Population, of: Of = "max") -> list[Candidate]:
    """Every answer that finished samples give. A sample without an answer agrees with no other, and stands alone."""
    rows: dict[Hashable, list[int]] = {}
    done = np.flatnonzero(population.done).tolist()
    for row in done:
        answer = None if population.answers is None else population.answers[row]
        rows.setdefault(("alone", row) if answer is None else ("said", answer), []).append(row)
    return [_candidate(population.scores[own], own, len(done), of) for own in rows.values()]


def _candidate(scores: Floats, rows: list[int], finished: int, of: Of) -> Candidate:
    known = scores[~np.isnan(scores)]
    reward = -np.inf if not len(known) else float(known.max() if of == "max" else known.mean())
    best = int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))
    return Candidate(len(rows) / finished, reward, rows[best], rows[0])


def best_of_majority(threshold: float, k: int = 1, of: Of = "max") -> Decision:
    """Submits k distinct answers: of those that at least a share `threshold` of the finished samples give, the ones of
    the highest reward; where fewer than k are so frequent, the most frequent of the others fill the places.

    of: an answer's reward is the largest of its samples' rewards, or their mean; it is shown by its best sample.
    threshold=0 with k=1 is `best_reward` exactly, and above 1 the k most frequent answers are submitted. The theory's
    threshold is 3/4 of the right answer's probability; in practice it is chosen on problems with known answers. While
    1/n is at least the threshold no answer is held back. support: the first answer's share of the finished samples.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not threshold >= 0:
        raise UsageError(f"best_of_majority(threshold={threshold!r}): a share of the samples, such as 0.05.")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"best_of_majority(threshold, k={k!r}): how many answers to submit, 1 or more.")
    if of not in ("max", "mean"):
        raise UsageError(f"best_of_majority(threshold, of={of!r}): 'max' or 'mean' of an answer's rewards.")
    name = f"best_of_majority({threshold}, k={k}, of={of})"
    return Decision(name, _BestOfMajority(k, float(threshold), of), scores=True)
