"""Best of majority as one method: independent samples, a gate by frequency, and the reward's best behind it."""

from __future__ import annotations

from typing import Annotated, Literal

from anystep.population import Decision
from anystep.procedure import ByReward, Count, Exploring, Rule, procedure, score, start, step
from anystep.process import Reward
from anystep.search import decide

Threshold = Annotated[
    float, Rule("a share of the samples, 0 or more", lambda x: isinstance(x, (int, float)) and x >= 0)
]
Of = Annotated[Literal["max", "mean"], Rule("'max' or 'mean' of an answer's rewards", lambda x: x in ("max", "mean"))]


def _decision(n: int, reward: Reward, threshold: float, k: int, of: Literal["max", "mean"]) -> Decision:
    return decide.best_of_majority(threshold, k, of)


@procedure(decide=_decision)
def best_of_majority(n: Count, reward: ByReward, threshold: Threshold, k: Count = 1, of: Of = "max") -> Exploring:
    """n independent samples, each scored; of the answers that at least a share `threshold` of them give, the k with the
    highest reward are submitted (`answer.submitted`), and the first of them is the answer.

    Preserves nothing: the gate holds back what the reward over-scores because it is rare. With the threshold at 0 it is
    best of n exactly, above 1 the k most frequent answers. Where fewer than k pass, the most frequent of the others
    fill the places.
    Source: "Best-of-Majority: Minimax-Optimal Strategy for Pass@k Inference Scaling" (ICLR 2026), arXiv 2510.03199.
    """
    population = yield from start(n)
    population = yield from step(population, until="done")
    return population.scored((yield from score(population, reward)))
