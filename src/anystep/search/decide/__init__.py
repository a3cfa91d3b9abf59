"""Which answer does a population give? Pure functions of states, weights, scores and probabilities."""

from anystep.search.decide.abstaining import abstain
from anystep.search.decide.complexity import complex_majority
from anystep.search.decide.every import every_answer
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
    "complex_majority",
    "estimates",
    "every_answer",
    "first_finished",
    "majority",
    "majority_above",
    "perplexity_consistency",
    "reward_majority",
    "vote",
    "weighted_majority",
]
