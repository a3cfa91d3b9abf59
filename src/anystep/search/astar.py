"""A*: always extend the open state with the lowest cost so far plus estimated cost to go."""

from __future__ import annotations

import numpy as np

from anystep.procedure import ByReward, Count, Exploring, procedure
from anystep.process import Floats
from anystep.search import decide
from anystep.search.best_first import Marks, best_first


def improbable(before: Marks, after: Marks) -> tuple[Floats, Floats]:
    """A step costs its -log p; still to pay is minus the log-probability that is estimated to come, nothing at an
    end."""
    return before.logp - after.logp, np.where(after.done, 0.0, -after.value)


@procedure(decide=decide.best_reward, needs_mass=True)
def astar(heuristic: ByReward, branch: Count = 4, expansions: Count = 256) -> Exploring:
    """Best-first search for the most probable finished path: cost is -log p of the path, and `heuristic` estimates the
    log-probability still to come (0 or less; a `Potential` or a `Reward` with that range).

    Preserves nothing of the distribution: it returns a mode. If the heuristic never underestimates the log-probability
    to come (admissible) and the process can `expand` all children, the answer is the most probable path exactly; with
    sampled children it is the best among those seen. Needs log-probabilities that are masses: a run refuses a process
    with densities. Ties prefer the deeper state, then the older. Stops after `expansions` with the best finished state
    seen, if any. Source: Hart, Nilsson and Raphael, "A Formal Basis for the Heuristic Determination of Minimum Cost
    Paths" (1968).
    """
    search = yield from best_first(heuristic, improbable, branch, expansions)
    found = search.finished() or search.root
    return found.scored(found.logp)
