"""Which states are worth a step, and which answer do they give? Procedures and decisions on any process."""

from anystep.search.ab_mcts import ab_mcts
from anystep.search.alphamath import AlphaMath
from anystep.search.astar import astar
from anystep.search.beam import beam, step_beam
from anystep.search.decide import (
    best_reward,
    first_finished,
    majority,
    majority_above,
    reward_majority,
    weighted_majority,
)
from anystep.search.mcts import mcts
from anystep.search.particle import particle_filter
from anystep.search.refine import refine
from anystep.search.sample import best_of_n, first_finish, sample, self_consistency
from anystep.search.thoughts import tree_of_thoughts
from anystep.search.together import together
from anystep.search.truncate import truncate

__all__ = [
    "AlphaMath",
    "ab_mcts",
    "astar",
    "beam",
    "best_of_n",
    "best_reward",
    "first_finish",
    "first_finished",
    "majority",
    "majority_above",
    "mcts",
    "particle_filter",
    "refine",
    "reward_majority",
    "sample",
    "self_consistency",
    "step_beam",
    "together",
    "tree_of_thoughts",
    "truncate",
    "weighted_majority",
]
