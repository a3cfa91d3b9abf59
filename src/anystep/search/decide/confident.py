"""Votes by how sure the model was while it wrote.

Source: Fu et al., "Deep Think with Confidence" (2025), arXiv 2508.15260.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict
from anystep.search.decide.votes import majority, vote


@dataclass(frozen=True)
class _ConfidenceWeighted:
    keep: float

    def __call__(self, population: Population) -> Verdict:
        said = np.array([a is not None for a in population.answers or ()], dtype=bool)
        known = np.flatnonzero(population.done & said & ~np.isnan(population.scores))
        if not len(known):
            return majority(population)
        most = max(1, math.ceil(round(self.keep * len(known), 9)))
        best = known[np.argsort(-population.scores[known], kind="stable")[:most]]
        votes = np.zeros(len(population))
        votes[best] = np.maximum(population.scores[best], 0.0)
        return vote(population, votes if votes.any() else np.isin(np.arange(len(population)), best).astype(np.float64))


def confidence_weighted(keep: float = 1.0) -> Decision:
    """A vote of the share `keep` of the finished samples that have the highest scores, each as much as its score.

    Scores are 0 or more, such as `verify.token_confidence(engine)`; a sample without one has no vote. keep: in (0, 1];
    one sample is always kept. Where none is scored, every finished sample has one vote.
    """
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise UsageError(f"confidence_weighted(keep={keep!r}): a share of the samples in (0, 1], such as 0.9.")
    return Decision(f"confidence_weighted(keep={keep})", _ConfidenceWeighted(float(keep)), scores=True)
