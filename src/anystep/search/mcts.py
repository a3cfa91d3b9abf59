"""Monte Carlo tree search over steps: by UCT or PUCT, with rollouts, a learned value, or both at its leaves."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from anystep.errors import UsageError
from anystep.population import Population
from anystep.procedure import Ask, ByReward, Count, Exploring, Positive, Rule, Share, procedure, score, start, step
from anystep.process import Floats
from anystep.search import decide
from anystep.search.tree import Node, normalised, priors, puct, uct

Select = Annotated[Literal["uct", "puct"], Rule("'uct' or 'puct'", lambda x: x in ("uct", "puct"))]
RULES = {"uct": uct, "puct": puct}


@procedure(decide=decide.best_reward)
def mcts(
    reward: ByReward,
    rounds: Count = 32,
    branch: Count = 4,
    c: Positive = 1.4,
    select: Select = "uct",
    value: ByReward | None = None,
    rollout: Share | None = None,
    close: bool = True,
    temper: Positive = 1.0,
    widen: Share = 0.5,
) -> Exploring:
    """`rounds` of: descend by `select`, add `branch` distinct children to a leaf, evaluate each, back up the sum.

    A finished child is worth its reward. An unfinished one is worth `rollout` times the reward of one rollout from it
    to its end, plus 1 - rollout times its `value`, a reward of unfinished states; by default it is rolled out where
    there is no value, and not where there is one. All are mapped to [0, 1] by their declared ranges before (a range
    that is not finite, by the values seen so far), so `c` means the same for every reward.

    select: "uct" explores by visits alone, "puct" by the step's probability as well; temper > 1 flattens these priors.
    widen: a state with N visits has branch (N / branch) ** widen children or more, and gets `branch` more where all
    below it is finished, until they bring nothing new; 0 leaves each at its first `branch`, which is right for a
    process that can `expand`: asked again it gives the same children.
    close: a finished state is not visited again, nor one below which all is finished; the search ends when the root is
    closed. Without it finished states go on being visited, as bandit theory has it, at no cost.

    Preserves nothing: of the states that finished, each once, the one with the highest reward answers. On a process
    that can `expand` all its children, enough rounds see every output. If nothing has finished when the rounds are
    over, the best open state is rolled out.
    Source: Kocsis and Szepesvari, "Bandit Based Monte-Carlo Planning" (ECML 2006); "puct" from Silver et al.,
    "Mastering the game of Go without human knowledge" (Nature 2017); widening from Coulom, "Computing Elo Ratings of
    Move Patterns in the Game of Go" (2007).
    """
    share = rollout if rollout is not None else 1.0 if value is None else 0.0
    if value is None and share < 1:
        raise UsageError(
            f"mcts(rollout={rollout}) leaves the rest to a value: call mcts(reward, value=r, rollout=0.5)."
        )
    leaves = Leaves(reward, value, share)
    root = Node((yield from start(1)))
    yield from grown(root, leaves, rounds, Growth(branch, c, RULES[select], close, temper, widen))
    return (yield from leaves.concluded(root))


@dataclass(frozen=True)
class Growth:
    """How a tree grows: the options of `mcts`."""

    branch: int
    c: float
    select: Callable[[Node, float], Node]
    close: bool = True
    temper: float = 1.0
    widen: float = 0.0
    distinct: bool = True

    def chosen(self, root: Node) -> Node:
        """The node whose turn it is."""
        node = root
        while node.children and not self.due(node):
            node = self.select(node, self.c)
        return node

    def due(self, node: Node) -> bool:
        """Whether it is time for more children."""
        if node.full:
            return False
        return len(node.children) < self.branch * (node.visits / self.branch) ** self.widen or all(
            child.closed for child in node.children
        )


def grown(root: Node, leaves: Leaves, rounds: int, growth: Growth) -> Generator[Ask, Any, None]:
    """The tree below `root`, by that many rounds of mcts."""
    for _ in range(rounds):
        if root.closed:
            break
        node = growth.chosen(root)
        if not node.live:  # it had finished, and its reward is known
            node.backed_up(1, node.own)
            continue
        children = yield from step(leaves.ready(node.state), growth.branch)
        if children.failed.all():  # a round without reward: the other leaves go on, and this one may be tried again
            node.backed_up(1, 0.0)
            continue
        fresh = node.fresh(children, growth.distinct)
        node.stale = 0 if len(fresh) else node.stale + len(children)
        node.full = growth.widen == 0 or node.stale > len(node.children)
        if len(fresh):
            worth = yield from leaves.worth(fresh)
            node.grow(fresh, worth, priors(node, fresh, growth.temper), growth.close)
        else:
            node.shut()


@dataclass
class Leaves:
    """What a tree's leaves are worth, and the finished states that this has come by, each once."""

    reward: ByReward
    value: ByReward | None
    share: float
    ends: list[Population] = field(default_factory=list)
    seen: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))  # rewards, values

    def concluded(self, root: Node) -> Exploring:
        """All that has finished; where nothing has, the best open state is rolled out."""
        if not self.ends:
            waiting = (node for node in root.every() if node.live and not node.children)
            best = max(waiting, key=lambda node: node.visits and node.mean, default=root)
            end = yield from step(self.ready(best.state), until="done")
            self.ends.append(end.scored((yield from score(end, self.reward))))
        return self.ends[0].join(*self.ends[1:])

    def ready(self, state: Population) -> Population:
        """A node's state as it is to be extended."""
        return state

    def worth(self, children: Population) -> Generator[Ask, Any, Floats]:
        """Each child's evaluation in [0, 1], (n,)."""
        live, worth = children.live, np.zeros(len(children))
        if self.share > 0:
            end = yield from step(children, until="done")
        else:
            end = children.take(~live)
        sure = np.ones(len(children), dtype=bool) if self.share > 0 else ~live
        if len(end):
            found = yield from score(end, self.reward)
            if end.done.any():
                self.ends.append(end.scored(found).take(end.done))
            self.seen[0].extend(found[np.isfinite(found)].tolist())
            worth[sure] = normalised(found, self.reward, self.seen[0])
        if self.value is not None and self.share < 1 and live.any():
            hope = yield from score(children.take(live), self.value)
            self.seen[1].extend(hope[np.isfinite(hope)].tolist())
            worth[live] = self.share * worth[live] + (1 - self.share) * normalised(hope, self.value, self.seen[1])
        return worth
