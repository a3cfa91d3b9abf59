"""Which answer does a population give? Pure functions of states, weights, scores and probabilities."""

from anystep.search.decide.votes import (
    best_reward,
    first_finished,
    majority,
    majority_above,
    reward_majority,
    vote,
    weighted_majority,
)

__all__ = [
    "best_reward",
    "first_finished",
    "majority",
    "majority_above",
    "reward_majority",
    "vote",
    "weighted_majority",
]
