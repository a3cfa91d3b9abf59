"""Route each step by a glimpse at the small model's first token of it."""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

import numpy as np

from anystep.procedure import ByProcess, ByReward, Count, Exploring, Rule, procedure, start, step
from anystep.process import Reward
from anystep.search import decide
from anystep.search.route import above, shared_step

Threshold = Annotated[
    float, Rule("a number, inf to hand nothing over", lambda x: isinstance(x, (int, float)) and not np.isnan(x))
]


@runtime_checkable
class Glimpses(Protocol):
    """A reward that draws a token when it looks, and may be told when that token will be kept."""

    def dropping(self, threshold: float) -> Reward:
        """This reward, which pays for the token that it drew where its value is above the threshold; elsewhere the
        token is the first of the step that follows, and is paid for there."""
        ...


@procedure(decide=decide.majority, needs_end=True)
def glimp_router(
    large: ByProcess, glimpse: ByReward, threshold: Threshold, n: Count = 1, concluding: ByProcess | None = None
) -> Exploring:
    """n samples whose every step is written by the run's (small) process where `glimpse` at its beginning is at most
    `threshold`, and by `large` where it is above.

    glimpse: scores live states before a step, as `verify.glimpse` does: the entropy in nats of the small model's next
    token. concluding: writes on each finished state to its end, as in the paper, where thinking ends with the small
    model's process and the answer is always the large one's: then no threshold reproduces the small model alone.

    Preserves nothing in between. At `threshold=inf` the law is the run's process's own, below the glimpse's range it is
    that of `large`, and then no glimpse is paid: with equal seeds these runs are token for token those of one process
    stepped step by step (for greedy processes, those of `sample` too). Decision: the majority.
    Source: Zeng et al., "GlimpRouter: Efficient Collaborative Inference by Glimpsing One Token of Thoughts" (ACL 2026),
    arXiv 2601.05110.
    """
    look = glimpse.dropping(threshold) if isinstance(glimpse, Glimpses) else glimpse
    population = yield from start(n)
    while population.live.any():
        handed = yield from above(population, population.live, look, threshold)
        population = yield from shared_step(population, handed, large)
    if concluding is not None:
        population = yield from step(population.reopened(), by=concluding, until="done")
    return population
