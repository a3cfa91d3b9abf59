"""Hypothesis refinement: propose, select by what fits the seen examples, and propose again where it fails."""

from __future__ import annotations

import numpy as np

from anystep.population import Population
from anystep.procedure import ByProcess, ByReward, Count, Exploring, procedure, score, start, step
from anystep.search import decide


@procedure(decide=decide.best_reward)
def hypothesis_refinement(n: Count, reward: ByReward, reviser: ByProcess, rounds: Count = 3) -> Exploring:
    """n hypotheses; the best by `reward` is revised n times, and so on, for at most `rounds` rounds of n.

    reward: how many of the seen examples a hypothesis explains, as `verify.rule_fit` has a symbolic interpreter say;
    the top of its range says that nothing fails, and ends the search. reviser: a process on the same states whose step
    turns a finished hypothesis into another, having read what it gets wrong, as `language.revising` makes one. Every
    hypothesis of every round is kept, so the one that answers fits at least as well as any that was proposed; a tie
    goes to the earlier. With rounds=1 it is best-of-n.

    Preserves nothing: with a reviser that draws afresh from the process it is best-of-(n rounds) exactly, with another
    it drifts to what the reviser makes of the best. A hypothesis that fits what was seen may still be wrong elsewhere.
    Source: Qiu et al., "Phenomenal Yet Puzzling: Testing Inductive Reasoning Capabilities of Language Models with
    Hypothesis Refinement" (ICLR 2024), arXiv 2310.08559; the best of all rounds answers here, not of the last.
    """
    fresh = yield from start(n)
    fresh = yield from step(fresh, until="done")
    hypotheses = fresh.scored((yield from score(fresh, reward)))
    for _ in range(rounds - 1):
        best = _best(hypotheses)
        if best is None or hypotheses.scores[best] >= reward.range[1]:
            break
        fresh = yield from step(hypotheses.take([best]).reopened(), branch=n, by=reviser, until="done")
        fresh = yield from step(fresh, by=reviser, until="done")  # a reviser that expands has made one step
        hypotheses = hypotheses.join(fresh.scored((yield from score(fresh, reward))))
    return hypotheses


def _best(population: Population) -> int | None:
    """The first finished state with the highest score, None where none has one."""
    worth = np.where(population.done & ~np.isnan(population.scores), population.scores, -np.inf)
    return int(np.argmax(worth)) if len(worth) and worth.max() > -np.inf else None
