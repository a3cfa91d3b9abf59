"""Perplexity consistency as one method: independent samples, and answers weighed by their paths' probability."""

from __future__ import annotations

from anystep.population import Decision
from anystep.procedure import Count, Exploring, Flag, procedure, start, step
from anystep.search import decide


def _decision(n: int, prune: bool) -> Decision:
    return decide.perplexity_consistency(prune)


@procedure(decide=_decision)
def perplexity_consistency(n: Count, prune: Flag = True) -> Exploring:
    """n independent samples; the answer whose distinct paths have the largest summed probability, after improbable
    paths were left out (prune=False leaves none out).

    Preserves nothing of the sample law. In the limit of n, without pruning, the answer is the mode of the process's law
    over answers, as a vote's is. The error of the sums falls exponentially once the answer's paths are few against n,
    where that of a vote's shares falls as 1/n; where paths hardly ever repeat, the likeliest sample decides. Refused
    where log-probabilities are no masses.
    Source: Zhou et al., "Bridging Internal Probability and Self-Consistency for Effective and Efficient LLM Reasoning"
    (2025), arXiv 2502.00511; arXiv 2510.15444 (NeurIPS 2025).
    """
    population = yield from start(n)
    return (yield from step(population, until="done"))
