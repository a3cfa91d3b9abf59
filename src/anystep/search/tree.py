"""The tree that searches grow: states with visits and values, chosen by an upper bound, closed when used up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from anystep.population import Population
from anystep.process import Floats, Reward


@dataclass(eq=False)
class Node:
    """A state of a tree: row `row` of `batch`, the population that it came in.

    visits: how many evaluations it or those below it had, total: the sum of those, each in [0, 1]. prior: its share
    among its siblings before any evaluation. own: its own evaluation. closed: nothing more is to be had below it.
    full: it has all the children it is to have.
    """

    batch: Population
    row: int = 0
    parent: Node | None = None
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    own: float = math.nan
    children: list[Node] = field(default_factory=list)
    closed: bool = False
    full: bool = False

    @property
    def state(self) -> Population:
        return self.batch.take([self.row])

    @property
    def live(self) -> bool:
        return bool(self.batch.live[self.row])

    @property
    def mean(self) -> float:
        """Its value: the mean of its evaluations, NaN where there is none."""
        return self.total / self.visits if self.visits else math.nan

    def line(self) -> Iterator[Node]:
        """It, its parent, and so on to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def grow(self, children: Population, worth: Floats, priors: Floats, close: bool = True) -> list[Node]:
        """Adds evaluated children, and their evaluations to every node on the way to the root.

        priors: of all its children, these last. close: a finished child is closed, and a node that is full and all of
        whose children are closed.
        """
        fresh = [
            Node(children, row, self, 0.0, 1, value, value, closed=close and not live)
            for row, (value, live) in enumerate(zip(worth.tolist(), children.live.tolist(), strict=True))
        ]
        self.children += fresh
        for child, prior in zip(self.children, priors.tolist(), strict=True):
            child.prior = prior
        self.backed_up(len(fresh), float(worth.sum()))
        self.shut()
        return fresh

    def fresh(self, children: Population, distinct: bool = True) -> Population:
        """Those of `children` that are not failed and, if distinct, not among its children yet, each once."""
        children = children.take(~children.failed)
        if not distinct:
            return children
        if not self.children or len(children) == 0:
            return children.distinct()
        old = [child.state for child in self.children]
        known = old[0].join(*old[1:], children).distinct()
        return known.take(np.arange(len(old), len(known)))

    def backed_up(self, visits: int, total: float) -> None:
        """Adds evaluations that were made below it, or again at it."""
        for node in self.line():
            node.visits += visits
            node.total += total

    def shut(self) -> None:
        """Closes it where it is full and all its children are closed, and so on to the root."""
        for node in self.line():
            if not (node.full and all(child.closed for child in node.children)):
                break
            node.closed = True

    def every(self) -> Iterator[Node]:
        """It and all nodes below it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


def uct(node: Node, c: float) -> Node:
    """The open child with the highest mean + c sqrt(log(parent's visits) / visits); of equal ones, the first.

    Source: Kocsis and Szepesvari, "Bandit Based Monte-Carlo Planning" (ECML 2006).
    """
    log = math.log(max(node.visits, 1))
    return max(
        (child for child in node.children if not child.closed),
        key=lambda child: child.total / child.visits + c * math.sqrt(log / child.visits),
    )


def puct(node: Node, c: float) -> Node:
    """The open child with the highest mean + c prior sqrt(parent's visits) / (1 + visits); of equal ones, the first.

    Source: Silver et al., "Mastering the game of Go without human knowledge" (2017), after Rosin (2011).
    """
    root = math.sqrt(node.visits)
    return max(
        (child for child in node.children if not child.closed),
        key=lambda child: child.total / child.visits + c * child.prior * root / (1 + child.visits),
    )


def priors(node: Node, fresh: Population, temper: float) -> Floats:
    """How likely the step to each child of `node` was, the `fresh` ones last, to the power of 1 / temper and as a share
    of their sum; even where nobody knows."""
    logp = np.concatenate([np.array([child.batch.logp[child.row] for child in node.children]), fresh.logp]) / temper
    if not np.isfinite(logp).any():
        return np.full(len(logp), 1 / max(len(logp), 1))
    p = np.exp(logp - logp[np.isfinite(logp)].max())
    p = np.where(np.isfinite(p), p, 0.0)
    return np.asarray(p / p.sum())


def normalised(values: Floats, reward: Reward, seen: Sequence[float]) -> Floats:
    """Rewards mapped to [0, 1] by the declared range, or by the values seen where that is not finite; unscored: 0."""
    low, high = reward.range
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = (min(seen), max(seen)) if seen else (0.0, 1.0)
    span = high - low if high > low else 1.0
    return np.asarray(np.clip((np.nan_to_num(values, nan=low, neginf=low, posinf=high) - low) / span, 0.0, 1.0))
