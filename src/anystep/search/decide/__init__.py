"""Which answer does a population give? Pure functions of states, weights, scores and probabilities."""

from anystep.search.decide.abstaining import abstain
from anystep.search.decide.frequent import best_of_majority
from anystep.search.decide.perplexity import estimates, perplexity_consistency
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
    "abstain",
    "best_of_majority",
    "best_reward",
    "estimates",
    "first_finished",
    "majority",
    "majority_above",
    "perplexity_consistency",
    "reward_majority",
    "vote",
    "weighted_majority",
]
