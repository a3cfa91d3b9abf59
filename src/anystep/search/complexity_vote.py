"""Complexity-based consistency as one method: independent samples, of which the longest reasoned ones vote."""

from __future__ import annotations

from anystep.population import Decision
from anystep.procedure import ByReward, Count, Exploring, procedure, score, start, step
from anystep.process import Reward
from anystep.search import decide


def _decision(n: int, k: int, complexity: Reward) -> Decision:
    return decide.complex_majority(k)


@procedure(decide=_decision)
def complexity_vote(n: Count, k: Count, complexity: ByReward) -> Exploring:
    """n independent samples; of the k most complex ones, the answer that most give.

    complexity: what counts as complex, by default of the paper the number of reasoning steps: `verify.steps()`, free,
    which counts a repeated line once and a chain that was cut off as none. Preserves nothing: it trims what reasons
    shortly, which is right where samples that skip steps err more, and wrong where long ones do, as on models that
    check what they got wrong. With k = n it is `self_consistency` exactly.
    Source: Fu et al., "Complexity-Based Prompting for Multi-Step Reasoning" (ICLR 2023), arXiv 2210.00720.
    """
    population = yield from start(n)
    population = yield from step(population, until="done")
    return population.scored((yield from score(population, complexity)))
