"""CoAT: a tree search whose every node may remember something new, which steers its value and what follows it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.population import Population
from anystep.procedure import Ask, ByProcess, ByReward, Count, Exploring, Positive, Share, procedure, score, start, step
from anystep.process import Floats, Process, Reward
from anystep.search import decide
from anystep.search.mcts import Growth, Leaves, grown
from anystep.search.tree import Node, uct


@procedure(decide=decide.best_reward)
def coat(
    reward: ByReward,
    association: ByProcess | None = None,
    relevance: ByReward | None = None,
    weight: Share = 0.2,
    rounds: Count = 32,
    branch: Count = 4,
    c: Positive = 1.4,
) -> Exploring:
    """`mcts` by UCT without rollouts, in which every node that goes on is associated with what its content calls for
    before it is evaluated and extended.

    association: a process on the same states whose step adds what it remembers (`language.associating`), and leaves a
    state alone where it finds nothing new. relevance: scores what was remembered, in [0, 1]; a node's value is
    (F + weight * A) / (1 + weight), with F its `reward`, which must tell of unfinished states, and A its relevance.
    Without a relevance the value is F. Finished states are worth their reward.

    Preserves nothing: the finished state with the highest reward answers. Without association and with weight 0 it is
    `mcts(reward, value=reward)` exactly, state by state.
    Source: Pan et al., "CoAT: Chain-of-Associated-Thoughts Framework for Enhancing Large Language Models Reasoning"
    (2025), arXiv 2502.02390, which gives no constants; here what is remembered is new to the whole line of a node.
    """
    leaves = Associating(reward, reward, 0.0, association=association, relevance=relevance, weight=weight)
    root = Node((yield from start(1)))
    yield from leaves.remember(root.state)
    yield from grown(root, leaves, rounds, Growth(branch, c, uct, widen=0.5))
    return (yield from leaves.concluded(root))


@dataclass
class Associating(Leaves):
    """Leaves that remember: `told` has each node's state with what it is associated with, by the node's id."""

    association: Process | None = None
    relevance: Reward | None = None
    weight: float = 0.0
    told: dict[int, Population] = field(default_factory=dict)

    def ready(self, state: Population) -> Population:
        return self.told.get(int(state.id[0]), state)

    def remember(self, states: Population) -> Exploring:
        """The states with what each is associated with."""
        if self.association is None or not states.live.any():
            return states
        told = yield from step(states, by=self.association)
        told = told.put(told.failed, states.take(told.failed))  # what cannot be associated goes on without
        self.told |= {id: told.take([row]) for row, id in enumerate(states.id.tolist())}
        return told

    def worth(self, children: Population) -> Generator[Ask, Any, Floats]:
        live = children.live
        going = yield from self.remember(children.take(live))
        children = children.put(live, going)
        worth = yield from super().worth(children)
        if self.relevance is None or self.weight == 0 or not live.any():
            return worth
        fits = np.nan_to_num((yield from score(children.take(live), self.relevance)))
        worth[live] = (worth[live] + self.weight * fits) / (1 + self.weight)
        return worth
