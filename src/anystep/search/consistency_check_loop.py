"""The consistency-check loop: every step passes a gate or is drawn again, and the whole chain is checked at its end."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from anystep.population import Population
from anystep.procedure import Ask, ByReward, Count, Exploring, Share, procedure, score, start, step
from anystep.process import Reward
from anystep.search import decide


@procedure(decide=decide.best_reward, needs_end=True)
def consistency_check_loop(
    gate: ByReward | None = None,
    check: ByReward | None = None,
    retries: Count = 3,
    rounds: Count = 5,
    threshold: Share = 0.5,
) -> Exploring:
    """One chain, step by step: a step that `gate` scores below `threshold` is struck out and drawn again, up to
    `retries` times, and then stands as it is. At its end `check` scores the whole chain; below 1, its value is the
    share of the steps that stand before the first contradiction, and the chain is revised from there: up to `rounds`
    chains in all.

    Each revision begins at least one step before the one before it did, at the beginning at last: what contradicts a
    step may lie before it. A step that failed is drawn again too. Without a gate every step stands, without a check the
    first chain answers; both at once are plain sampling. Preserves nothing: the answer is the last chain without
    contradiction, else the one that stood longest. A chain without contradiction may be wrong all the same. The
    decision is the best score of `check`.
    Source: "A NotSo Simple Way to Beat Simple Bench" (2024), arXiv 2412.12173.
    """
    trail = [(yield from start(1))]
    chains: list[Population] = []
    back = math.inf
    for _ in range(rounds):
        yield from _written(trail, gate, retries, threshold)
        chain = trail[-1]
        if check is None:
            return chain
        worth = float((yield from score(chain, check))[0])
        chains.append(chain.scored([worth]))
        if not worth < 1:  # also where it could not be scored
            break
        taken = len(trail) - 1
        back = max(0, min(math.floor(max(worth, 0.0) * taken + 1e-9), back - 1, taken - 1))
        trail = trail[: int(back) + 1]
    return chains[0].join(*chains[1:])


def _written(trail: list[Population], gate: Reward | None, retries: int, threshold: float) -> Generator[Ask, Any, None]:
    """Steps onto `trail` until its last state is finished, each through the gate."""
    while trail[-1].live.any():
        for _ in range(1 + retries):
            taken = yield from step(trail[-1])
            if taken.failed.any():
                continue
            if gate is None or not (yield from score(taken, gate))[0] < threshold:
                break
        trail.append(taken)
