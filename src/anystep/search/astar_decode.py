"""A*-decoding: best-first search over partial outputs, guided by a step reward alone."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from anystep.procedure import Count, Exploring, Rule, procedure, score, step
from anystep.process import Floats, Reward
from anystep.search import decide
from anystep.search.best_first import Marks, Pair, best_first

Bounded = Annotated[
    Reward,
    Rule("a reward whose range has a highest value, such as verify.chain_steps()", lambda x: np.isfinite(x.range[1])),
]
Surcharge = Annotated[float, Rule("a number, 0 or more", lambda x: isinstance(x, (int, float)) and x >= 0)]


def drops(highest: float) -> Pair:
    """A step costs what the reward falls by; still to pay is what the reward lacks of its highest value, at an end too.
    A start, of which it is not asked, lacks nothing; a state that could not be scored lacks infinitely much."""

    def pair(before: Marks, after: Marks) -> tuple[Floats, Floats]:
        had = np.nan_to_num(before.value, nan=highest)
        has = np.nan_to_num(after.value, nan=-np.inf)
        return np.maximum(had - has, 0.0), highest - has

    return pair


@procedure(decide=decide.best_reward)
def astar_decode(
    reward: Bounded, branch: Count = 4, expansions: Count = 64, goals: Count = 1, reopen: Surcharge | None = None
) -> Exploring:
    """Extends the open partial output with the least f = g + h by `branch` children, whichever it is, until a finished
    one is the least: h is what its reward lacks of the highest, g what the reward has fallen by on the way, from the
    highest at the start.

    Preserves nothing. The answer has the least f of all outputs that were made: the first goal, or of `goals` of them
    the one with the highest reward. h is no lower bound of what is to come where a reward can rise again, so the answer
    need not be the output of highest reward; where it only falls, as a product of steps does, it is, of those made.
    expansions: the budget, checked before each: at most expansions * branch children are made, and those whose text no
    sibling has are scored, once; where none of them is finished by then, the best open state is run to its end. A run's
    own `Budget` holds inside a step too, and then the best finished state answers. reopen: an extended state stays
    open, and each doubling of how often it was extended adds this much to its f. With branch=1 samples are then drawn
    one by one, where they are most promising. None, as published, never extends a state twice; it suits a process that
    can `expand`, which would name the same children again.
    Source: "A*-Decoding: Token-Efficient Inference Scaling" (2025), arXiv 2505.13672; states that stay open are of
    Yoshizumi, Miura and Ishida, "A* with Partial Expansion for Large Branching Factor Problems" (AAAI 2000).
    """
    search = yield from best_first(
        reward, drops(reward.range[1]), branch, expansions, goals, distinct=True, reopen=reopen
    )
    found = search.finished()
    if found is not None:
        return found
    best = search.promising()
    if best is None and not search.root.live.any():
        return search.root
    best = search.root if best is None else best
    ended = yield from step(best, until="done")
    return ended.scored((yield from score(ended, reward)))
