"""Vote among the most complex: only the k samples with the highest scores have a vote.

Source: Fu et al., "Complexity-Based Prompting for Multi-Step Reasoning" (ICLR 2023), arXiv 2210.00720.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict
from anystep.search.decide.votes import vote


@dataclass(frozen=True)
class _ComplexMajority:
    k: int

    def __call__(self, population: Population) -> Verdict:
        worth = np.where(population.done, np.nan_to_num(population.scores, nan=-np.inf, neginf=-np.inf), -np.inf)
        rows = [row for row in np.argsort(-worth, kind="stable").tolist() if population.done[row]]
        votes = np.zeros(len(population))
        votes[rows[: self.k]] = 1.0
        return vote(population, votes)


def complex_majority(k: int) -> Decision:
    """The answer that most of the k finished samples with the highest scores give; scores are counts of steps.

    Of samples with equal scores the first come first, which is as good as at random, for samples are exchangeable. A
    sample without a score comes last. With k at least the number of samples it is `majority` exactly.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"complex_majority(k={k!r}): how many of the most complex samples vote, 1 or more.")
    return Decision(f"complex_majority({k})", _ComplexMajority(k), scores=True)
