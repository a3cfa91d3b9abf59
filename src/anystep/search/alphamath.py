"""AlphaMath: step values from tree search on outcomes alone, then a step-level beam that follows the value learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.procedure import ByReward, Count, Exploring, Method, Positive, procedure, start
from anystep.process import Floats, Reward, reward
from anystep.search import decide
from anystep.search.beam import step_beam
from anystep.search.mcts import Growth, Leaves, grown, mcts
from anystep.search.tree import Node, puct


@dataclass(frozen=True)
class AlphaMath:
    """The model-free half of AlphaMath: which searches its rounds and its answers are made of.

    value: a reward of unfinished states, learnt in the round before; None in the first round, where an unfinished state
    is worth one half. branch: steps sampled of a state. rounds, c, temper: of the tree, see `mcts`; c multiplies values
    in [0, 1], so 0.75 is the paper's 1.5 in [-1, 1], and its exp(mean log-probability of a token) is a temper of about
    a step's number of tokens. width: of the beam.

    Preserves nothing. Where this differs from the paper: all children of a leaf are evaluated when they are made,
    instead of the leaf, so none is without a value when its parent is next asked for the best.
    Source: Chen et al., "AlphaMath Almost Zero: Process Supervision without Process" (NeurIPS 2024), arXiv 2405.03553.
    `language.train.alphamath` is the half that trains.
    """

    value: Reward | None = None
    width: int = 3
    branch: int = 5
    rounds: int = 40
    c: float = 0.75
    temper: float = 6.0

    def supervise(self, outcome: Reward, close: bool = True) -> Method:
        """A tree for training, `outcome` being what a finished state is worth. Its population is every state of the
        tree: `scores` are their values in [0, 1], `weights` are in proportion to their visits."""
        return tree_values(outcome, self.value or HALF, self.rounds, self.branch, self.c, close, self.temper)

    def beam(self) -> Method:
        """The step-level beam that answers at run time."""
        return step_beam(self.width, self._learnt("beam"), self.branch)

    def tree(self) -> Method:
        """The tree that answers at run time, by the value at its leaves and of its ends."""
        value = self._learnt("tree")
        return mcts(value, self.rounds, self.branch, self.c, "puct", value, temper=self.temper, widen=0.0)

    def _learnt(self, what: str) -> Reward:
        if self.value is None:
            raise UsageError(f"AlphaMath().{what}() needs a value: call AlphaMath(value=verify.chain_value(path)).")
        return self.value


def half(states: Any) -> Floats:
    """One half of every state: what nothing is known of is worth."""
    return np.full(len(states), 0.5)


HALF = reward(half)


@procedure(decide=decide.best_reward)
def tree_values(
    outcome: ByReward,
    value: ByReward,
    rounds: Count = 40,
    branch: Count = 5,
    c: Positive = 0.75,
    close: bool = True,
    temper: Positive = 1.0,
    distinct: bool = True,
) -> Exploring:
    """The whole tree of an `mcts` by PUCT without rollouts, as a population: every state's value (the mean of all
    evaluations at and below it, an unfinished leaf's by `value`, a finished one's by `outcome`) and share of visits.

    Preserves nothing: values are means over what the search visited, so they exceed the process's own chance of success
    where exploiting finds better steps. With a large `c` and close=False they tend to that chance itself: where the
    process can `expand` all its children and temper is 1, visits follow its law; with distinct=False and a temper so
    large that samples count alike, they follow the samples.
    """
    root = Node((yield from start(1)))
    leaves = Leaves(outcome, value, 0.0)
    yield from grown(root, leaves, rounds, Growth(branch, c, puct, close, temper, distinct=distinct))
    every = list(root.every())
    population = every[0].state.join(*(node.state for node in every[1:]))
    weights = np.array([max(node.visits, 1) for node in every], dtype=np.float64)
    return population.scored(np.array([node.mean for node in every])).weighed(weights)
