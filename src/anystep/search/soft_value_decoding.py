"""Soft value-based decoding: of several next states, one is drawn by how much reward it is expected to lead to."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.procedure import ByReward, Count, Exploring, Rule, draw, procedure, score, start, step
from anystep.process import Floats
from anystep.search import decide

Temperature = Annotated[
    float, Rule("0 (the best) or a positive number", lambda x: isinstance(x, (int, float)) and 0 <= x < np.inf)
]


@procedure(decide=decide.first_finished, needs_end=True)
def soft_value_decoding(value: ByReward, branch: Count = 8, n: Count = 1, temperature: Temperature = 1.0) -> Exploring:
    """n samples; at each step `branch` next states of each are drawn, and one goes on with probability proportional to
    exp(value / temperature). The samples take nothing from each other, and the reward is never differentiated.

    value: of an unfinished state, what its end will be worth; in a diffusion the reward of the predicted clean thing,
    which costs nothing more (`diffusion.on_clean`), or a learned reward.

    Target: p(x) exp(value(x) / temperature) over finished x, in the limit of `branch`, if value is the soft value
    temperature * log E[exp(value(end) / temperature) | state]; the bias of a step falls as 1 / branch. With another
    value the gap stays, whatever `branch`. With branch=1 it is `sample`, draw for draw. temperature: 0 takes the best
    of the drawn, as the authors' code does; that preserves nothing, and drifts from the target as `branch` grows.
    Needs a process that draws: a run refuses a deterministic one. A child that failed or has no value is not chosen
    while there are others.
    Source: Li et al., "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based
    Decoding" (2024), arXiv 2408.08252.
    """
    population = yield from start(n)
    if branch == 1:
        population = yield from step(population, until="done")
    while population.live.any():
        children = yield from step(population, branch, drawn=True)
        worth = yield from score(children, value)
        worth = np.where(children.failed | np.isnan(worth), -np.inf, worth)
        assert children.parent is not None
        u = (yield from draw(n)) if temperature else np.zeros(n)
        population = children.take(chosen(worth, children.parent, temperature, u)).weighed(np.ones(n))
    return population.scored((yield from score(population, value)))


def chosen(worth: Floats, parent: NDArray[np.int64], temperature: float, u: Floats) -> NDArray[np.int64]:
    """Of each parent's children one row, (n,): drawn by exp(worth / temperature) at u in [0, 1), or the best at 0.

    worth: (m,), -inf for what cannot be chosen unless nothing else can. parent: (m,) ascending, 0 to n - 1.
    """
    first = np.searchsorted(parent, np.arange(len(u)))
    ordinal = np.arange(len(parent)) - first[parent]
    table = np.full((len(u), ordinal.max() + 1), -np.inf)
    table[parent, ordinal] = worth
    if not temperature:
        return np.asarray(first + table.argmax(-1))
    best = table.max(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        p = np.exp((table - best) / temperature)
    sure = ~np.isfinite(best[:, 0])  # nothing is known of any, and the first goes on; or one is worth all others
    p[sure] = np.arange(p.shape[1]) == table[sure].argmax(-1)[:, None]
    return np.asarray(first + lineage.choose(p, u))
