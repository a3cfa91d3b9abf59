"""Tree of thoughts: deliberate search over steps, breadth first with a beam or depth first with backtracking."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Any, Literal

import numpy as np

from anystep.errors import UsageError
from anystep.population import Population
from anystep.procedure import Ask, ByReward, Count, Exploring, Rule, Share, procedure, score, start, step
from anystep.search import decide
from anystep.search.beam import beam

Order = Annotated[Literal["bfs", "dfs"], Rule("'bfs' or 'dfs'", lambda x: x in ("bfs", "dfs"))]


@procedure(decide=decide.best_reward, needs_end=True)
def tree_of_thoughts(
    reward: ByReward,
    order: Order = "bfs",
    branch: Count = 5,
    width: Count = 5,
    prune: Share = 0.5,
    expansions: Count = 32,
) -> Exploring:
    """Thoughts are the process's steps: `branch` distinct ones are proposed of a state, `reward` evaluates each.

    order: "bfs" keeps the `width` best states of each level (it is `beam`, with distinct children). "dfs" goes on from
    the best child, comes back to the next one where a line ends, never enters a state worth less than `prune` (a share
    of the reward's declared range, which must then be finite), and stops at the first finished state worth at least
    that, or after `expansions` of states. reward: any that tells of unfinished states; a judge included.

    Preserves nothing: the answer is the finished state with the highest reward. If "dfs" ends without a finished state,
    the best state it has seen is run to its end.
    Source: Yao et al., "Tree of Thoughts: Deliberate Problem Solving with Large Language Models" (NeurIPS 2023).
    """
    if order == "bfs":
        return (yield from beam(width, reward, branch, distinct=True)())
    low, high = reward.range
    if not np.isfinite([low, high]).all():
        raise UsageError(
            f"tree_of_thoughts(order='dfs') prunes by a share of the reward's range, and {reward.name}'s is "
            f"({low}, {high}): give a reward of a finite range, such as verify.chain_steps(), or order='bfs'."
        )
    return (yield from _depth_first(reward, branch, low + prune * (high - low), expansions))


def _depth_first(reward: ByReward, branch: int, least: float, expansions: int) -> Generator[Ask, Any, Population]:
    waiting = [(yield from start(1))]
    ends: list[Population] = []
    seen: list[Population] = list(waiting)
    while waiting and expansions:
        state = waiting.pop()
        if state.done.all():
            ends.append(state)
            break
        expansions -= 1
        children = yield from step(state, branch)
        children = children.take(~children.failed).distinct()
        values = yield from score(children, reward)
        children = children.scored(values)
        worth = np.where(np.isnan(values), -np.inf, values)
        below = children.take(children.done & (worth < least))
        ends += [below] if len(below) else []
        rising = np.argsort(worth, kind="stable")
        waiting += [children.take([row]) for row in rising if worth[row] >= least]
        seen += [children.take([rising[-1]])] if len(rising) and children.live[rising[-1]] else []
    ends += [state for state in waiting if state.done.all()]
    if not ends:
        best = max(seen, key=lambda state: -np.inf if np.isnan(state.scores[0]) else state.scores[0])
        end = yield from step(best, until="done")
        ends.append(end.scored((yield from score(end, reward))))
    return ends[0].join(*ends[1:])
