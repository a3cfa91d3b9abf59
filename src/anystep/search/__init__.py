"""Which states are worth a step, and which answer do they give? Procedures and decisions on any process."""

from anystep.search.ab_mcts import ab_mcts
from anystep.search.adaptive_prompt import adaptive_prompt
from anystep.search.adaptive_self_consistency import adaptive_self_consistency
from anystep.search.alphamath import AlphaMath
from anystep.search.astar import astar
from anystep.search.astar_decode import astar_decode
from anystep.search.beam import beam, step_beam
from anystep.search.best_of_majority import best_of_majority
from anystep.search.capability_aware_best_of_n import capability_aware_best_of_n
from anystep.search.coat import coat
from anystep.search.complexity_vote import complexity_vote
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
from anystep.search.deepconf import deepconf, deepconf_online
from anystep.search.draft_router import draft_router
from anystep.search.dvts import dvts
from anystep.search.glimp_router import glimp_router
from anystep.search.hypothesis_refinement import hypothesis_refinement
from anystep.search.infty_think import infty_think
from anystep.search.iterative_deepening_sampling import (
    Anywhere,
    Every,
    Geometric,
    iterative_deepening_sampling,
    triggered_sampling,
)
from anystep.search.mcts import mcts
from anystep.search.noise_search import noise_search, path_search
from anystep.search.parallel_tempering import parallel_tempering
from anystep.search.particle import particle_filter
from anystep.search.particle_gibbs import particle_gibbs
from anystep.search.particle_islands import particle_islands
from anystep.search.perplexity_consistency import perplexity_consistency
from anystep.search.plangen import plangen
from anystep.search.rebase import rebase
from anystep.search.refine import refine
from anystep.search.repeated_sampling import repeated_sampling
from anystep.search.sample import best_of_n, first_finish, sample, self_consistency
from anystep.search.soft_value_decoding import soft_value_decoding
from anystep.search.thoughts import tree_of_thoughts
from anystep.search.together import together
from anystep.search.tournament import tournament
from anystep.search.truncate import truncate

__all__ = [
    "AlphaMath",
    "Anywhere",
    "Every",
    "Geometric",
    "ab_mcts",
    "abstain",
    "adaptive_prompt",
    "adaptive_self_consistency",
    "astar",
    "astar_decode",
    "beam",
    "best_of_majority",
    "best_of_n",
    "best_reward",
    "capability_aware_best_of_n",
    "coat",
    "complexity_vote",
    "consistency_check_loop",
    "deepconf",
    "deepconf_online",
    "draft_router",
    "dvts",
    "first_finish",
    "first_finished",
    "glimp_router",
    "hypothesis_refinement",
    "infty_think",
    "iterative_deepening_sampling",
    "majority",
    "majority_above",
    "mcts",
    "noise_search",
    "parallel_tempering",
    "particle_filter",
    "particle_gibbs",
    "particle_islands",
    "path_search",
    "perplexity_consistency",
    "plangen",
    "rebase",
    "refine",
    "repeated_sampling",
    "reward_majority",
    "sample",
    "self_consistency",
    "soft_value_decoding",
    "step_beam",
    "together",
    "tournament",
    "tree_of_thoughts",
    "triggered_sampling",
    "truncate",
    "weighted_majority",
]
