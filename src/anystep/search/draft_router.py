"""Draft each step with the small model, and let a router hand it to the large one."""

from __future__ import annotations

from anystep.procedure import ByProcess, ByReward, Count, Exploring, procedure, start, step
from anystep.search import decide
from anystep.search.glimp_router import Threshold
from anystep.search.route import above


@procedure(decide=decide.majority, needs_end=True)
def draft_router(large: ByProcess, router: ByReward, threshold: Threshold = 0.5, n: Count = 1) -> Exploring:
    """n samples whose every step is drafted by the run's (small) process; where `router` of the drafted state is above
    `threshold` the draft is dropped, and `large` writes the step from where the draft had begun.

    router: scores states with their drafted step: how much better `large` would do
    (`language.accelerate.arbitrage`), or how bad the step is (the negative of a step reward, which is reward-guided
    speculative decoding). A draft that failed is handed over too.

    Preserves nothing in between. Where the router's range puts every state on one side of the threshold nothing is
    scored: at its upper end the run is that of the small process stepped step by step, with equal seeds token for token
    (for greedy processes `sample`'s too), below its lower end that of `large`, and nothing is drafted. A run that is
    stopped early may answer with a finished draft that was dropped. Decision: the majority.
    Source: Maheswaran et al., "Arbitrage: Efficient Reasoning via Advantage-Aware Speculation" (2025),
    arXiv 2512.05033.
    """
    population = yield from start(n)
    while population.live.any():
        live = population.live
        if threshold < router.range[0]:
            population = yield from step(population, by=large)
            continue
        drafted = yield from step(population)
        handed = live & drafted.failed
        handed |= yield from above(drafted, live & ~drafted.failed, router, threshold)
        if handed.any():
            again = yield from step(population.take(handed), by=large)
            drafted = drafted.put(handed, again)
        population = drafted
    return population
