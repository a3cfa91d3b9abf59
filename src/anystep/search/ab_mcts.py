"""AB-MCTS: at every state of a tree, Thompson sampling decides whether to go wider or deeper."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from anystep.population import Population
from anystep.procedure import Ask, ByProcess, ByReward, Count, Exploring, Rule, draw, procedure, score, start, step
from anystep.process import Floats
from anystep.search import decide
from anystep.search.tree import normalised

Posterior = Annotated[Literal["beta", "gaussian"], Rule("'beta' or 'gaussian'", lambda x: x in ("beta", "gaussian"))]


@dataclass
class Seen:
    """What is known of arms: how many values each has seen, their sums and sums of squares, (arms,)."""

    count: Floats
    total: Floats
    square: Floats

    @classmethod
    def nothing(cls, arms: int) -> Seen:
        return cls(np.zeros(arms), np.zeros(arms), np.zeros(arms))

    def add(self, arm: int, value: float) -> None:
        self.count[arm] += 1
        self.total[arm] += value
        self.square[arm] += value * value


def thompson(seen: Seen, u: Floats, posterior: str) -> Floats:
    """A draw from each arm's posterior of its mean, (arms,), at the uniforms u.

    "beta": of values in [0, 1] as shares of a success, prior Beta(1/2, 1/2). "gaussian": of normal values with unknown
    mean and variance, prior normal-inverse-chi-squared with mean 1/2, one pseudo-observation and scale 0.1; the mean's
    marginal is a Student t.
    """
    from scipy.special import betaincinv, stdtrit  # imported late: it is slow, and most methods never draw from it

    if posterior == "beta":
        won = np.clip(seen.total, 0.0, seen.count)
        return np.asarray(betaincinv(0.5 + won, 0.5 + seen.count - won, u))
    n = seen.count
    mean = np.divide(seen.total, n, out=np.full(len(n), 0.5), where=n > 0)
    spread = np.maximum(seen.square - n * mean**2, 0.0)
    kappa = degrees = 1 + n
    centre = (0.5 + seen.total) / kappa
    scale = (0.1 + spread + n / kappa * (mean - 0.5) ** 2) / degrees
    return np.asarray(centre + np.sqrt(scale / kappa) * stdtrit(degrees, u))


@dataclass(eq=False)
class Branching:
    """A state with its arms: 0 goes wider, 1 deeper; and, below, what each child has seen in itself and beneath."""

    batch: Population
    row: int = 0
    parent: Branching | None = None
    place: int = 0  # among its parent's children
    ended: bool = False  # it can have no children
    worth: float = 0.5
    arms: Seen = field(default_factory=lambda: Seen.nothing(2))
    children: list[Branching] = field(default_factory=list)
    below: Seen = field(default_factory=lambda: Seen.nothing(4))
    going: list[int] = field(default_factory=list)  # the children that are not ended

    def told(self, child: Branching, value: float) -> None:
        """A child of its own, worth `value`: the arm that went wider learns, and everything above that went deeper."""
        child.place = len(self.children)
        self.children.append(child)
        if not child.ended:
            self.going.append(child.place)
        if len(self.children) > len(self.below.count):
            self.below = Seen(*(np.concatenate([a, np.zeros(len(a))]) for a in vars(self.below).values()))
        self.below.add(child.place, value)
        self.arms.add(0, value)
        node = self
        while node.parent is not None:
            node.parent.below.add(node.place, value)
            node.parent.arms.add(1, value)
            node = node.parent


@procedure(decide=decide.best_reward, needs_branches=True)
def ab_mcts(
    reward: ByReward,
    rounds: Count = 32,
    batch: Count = 1,
    posterior: Posterior = "beta",
    by: ByProcess | None = None,
    rollout: bool = False,
) -> Exploring:
    """`rounds` of: from the root, sample whether to go wider (a new child here) or deeper (into a child, sampled too),
    until a state gets a new child; its reward is what every choice on the way learns from. Variant A of AB-MCTS.

    Without `by` a child is one step on, and finished states end the tree; with rollout=True it is judged by one rollout
    to its end, else by its own reward, which must then tell of unfinished states. With `by`, a process that revises,
    the root's children are whole outputs and a deeper child revises its parent's. batch: choices made on the same
    knowledge and performed together. posterior: "beta" or "gaussian", of rewards mapped to [0, 1] by their declared
    range (a range that is not finite, by the values seen so far).

    Preserves nothing: the finished state with the highest reward answers. Both posteriors give every choice a positive
    chance for ever, so each output is seen in the limit. If nothing has finished, the best state is run to its end.
    Source: Inoue et al., "Wider or Deeper? Scaling LLM Inference-Time Compute with Adaptive Branching Tree Search"
    (2025), arXiv 2503.04412; its priors' constants are ours.
    """
    first = yield from start(1)
    root = Branching(first, ended=not first.live.any())
    ends: list[Population] = []
    seen: list[float] = []
    best = root
    for at in range(0, rounds, batch):
        if root.ended:
            break
        chosen = []
        for _ in range(min(batch, rounds - at)):
            chosen.append((yield from _choice(root, posterior)))
        children = yield from _children(chosen, by)
        end = (yield from step(children, until="done")) if rollout else children
        values = yield from score(end, reward)
        if end.done.any():
            ends.append(end.take(end.done).scored(values[end.done]))
        seen += values[np.isfinite(values)].tolist()
        worth = normalised(values, reward, seen).tolist()
        for row, node in enumerate(chosen):
            if not children.failed[row]:
                child = Branching(children, row, node, ended=by is None and not children.live[row], worth=worth[row])
                node.told(child, worth[row])
                best = child if best is root or (not child.ended and child.worth > best.worth) else best
    if not ends:
        end = yield from step(best.batch.take([best.row]), until="done")
        ends.append(end.scored((yield from score(end, reward))))
    return ends[0].join(*ends[1:])


def _choice(root: Branching, posterior: str) -> Generator[Ask, Any, Branching]:
    """The state that is to have a new child."""
    node = root
    while node.going:
        wider, deeper = thompson(node.arms, (yield from draw(2)), posterior).tolist()
        if wider >= deeper:
            break
        going = np.array(node.going)
        known = Seen(node.below.count[going], node.below.total[going], node.below.square[going])
        u = yield from draw(len(going))
        node = node.children[node.going[int(np.argmax(thompson(known, u, posterior)))]]
    return node


def _children(chosen: list[Branching], by: ByProcess | None) -> Generator[Ask, Any, Population]:
    """A new child of each, in order."""
    states = [node.batch.take([node.row]) for node in chosen]
    parents = states[0].join(*states[1:])
    if by is None:
        return (yield from step(parents))
    roots = np.array([node.parent is None for node in chosen])
    made = parents
    if roots.any():
        fresh = yield from step(parents.take(roots), until="done")
        made = fresh
    if not roots.all():
        revised = yield from step(parents.take(~roots).reopened(), by=by, until="done")
        made = made.join(revised) if roots.any() else revised
    order = np.concatenate([np.flatnonzero(roots), np.flatnonzero(~roots)])
    return made.take(np.argsort(order, kind="stable"))
