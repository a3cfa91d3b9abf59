"""Which states are worth a step, and which answer do they give? Procedures and decisions on any process."""

from anystep.search.astar import astar
from anystep.search.beam import beam
from anystep.search.decide import (
    best_reward,
    first_finished,
    majority,
    majority_above,
    reward_majority,
    weighted_majority,
)
from anystep.search.hypothesis_refinement import hypothesis_refinement
from anystep.search.mcts import mcts
from anystep.search.particle import particle_filter
from anystep.search.plangen import plangen
from anystep.search.refine import refine
from anystep.search.sample import best_of_n, first_finish, sample, self_consistency
from anystep.search.together import together
from anystep.search.truncate import truncate

__all__ = [
    "astar",
    "beam",
    "best_of_n",
    "best_reward",
    "first_finish",
    "first_finished",
    "hypothesis_refinement",
    "majority",
    "majority_above",
    "mcts",
    "particle_filter",
    "plangen",
    "refine",
    "reward_majority",
    "sample",
    "self_consistency",
    "together",
    "truncate",
    "weighted_majority",
]
