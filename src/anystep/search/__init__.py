"""Which states are worth a step, and which answer do they give? Procedures and decisions on any process."""

from anystep.search.adaptive_self_consistency import adaptive_self_consistency
from anystep.search.astar import astar
from anystep.search.beam import beam
from anystep.search.best_of_majority import best_of_majority
from anystep.search.consistency_check_loop import consistency_check_loop
from anystep.search.decide import (
    abstain,
    best_reward,
    first_finished,
    majority,
    majority_above,
    reward_majority,
    weighted_majority,
)
from anystep.search.infty_think import infty_think
from anystep.search.mcts import mcts
from anystep.search.particle import particle_filter
from anystep.search.perplexity_consistency import perplexity_consistency
from anystep.search.refine import refine
from anystep.search.sample import best_of_n, first_finish, sample, self_consistency
from anystep.search.together import together
from anystep.search.truncate import truncate

__all__ = [
    "abstain",
    "adaptive_self_consistency",
    "astar",
    "beam",
    "best_of_majority",
    "best_of_n",
    "best_reward",
    "consistency_check_loop",
    "first_finish",
    "first_finished",
    "infty_think",
    "majority",
    "majority_above",
    "mcts",
    "particle_filter",
    "perplexity_consistency",
    "refine",
    "reward_majority",
    "sample",
    "self_consistency",
    "together",
    "truncate",
    "weighted_majority",
]
