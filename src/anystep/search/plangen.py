"""PlanGEN: verify a plan, and while it is not good enough let a bandit choose which search makes the next ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from anystep.errors import UsageError
from anystep.population import Population
from anystep.procedure import ByReward, Count, Exploring, Method, Rule, procedure, score, start, step
from anystep.process import Floats, Reward
from anystep.search import decide

DIVERSITY, RECOVERY = 0.1, 0.1  # weights of the two lesser terms of the choice

_METHODS = Rule("methods, as in (search.best_of_n(5, reward), search.beam(2, reward))", lambda x: bool(x) and all(
    isinstance(m, Method) for m in x))  # fmt: skip


@dataclass(frozen=True)
class Played:
    """What is known of each algorithm from other problems: (algorithms,) plays, and the mean of the best reward that a
    play reached, as a share of the reward's range."""

    plays: tuple[float, ...]
    means: tuple[float, ...]


def choice(played: Played, prior: Floats, done: Sequence[int], failed: int | None) -> Floats:
    """The modified upper confidence bound of each algorithm, (algorithms,); the highest is chosen, ties to the first.

    Mean reward + sqrt(2 ln(T + 1) / N) + prior / (1 + plays here) + diversity / (plays of it here + 1), and recovery
    for all others where `failed` was played last and made nothing better. An algorithm that was never played comes
    before any that was, in the order of the prior. What a play reached on this problem counts by recovery alone, not in
    the mean. done: the algorithms played on this problem, in order.
    """
    here = np.bincount(np.asarray(done, dtype=np.int64), minlength=len(prior)).astype(float)
    n = np.asarray(played.plays) + here
    sure = np.maximum(n, 1)
    bound = np.asarray(played.means) + np.sqrt(2 * np.log(n.sum() + 1) / sure)
    recovers = RECOVERY * ((np.arange(len(prior)) != failed) & (failed is not None))
    known = bound + prior / (1 + len(done)) + DIVERSITY / (here + 1) + recovers
    return np.where(n > 0, known, 1e6 + prior)


def plangen(
    algorithms: Sequence[Method],
    reward: Reward,
    enough: float | None = None,
    rounds: int = 3,
    prior: Sequence[float] = (),
    played: Played | None = None,
) -> Method:
    """One plan first; while the best has less than `enough`, the algorithm that `choice` prefers makes more of them.

    reward: the verifier's, one scale for all algorithms, such as `verify.plan_constraints`. enough: what counts as good
    in the reward's own units, by default 97.5% of its range (95 on -100 to 100). rounds: algorithms played at most.
    prior: how suitable each algorithm is for this problem, 0 for all by default. played: what is known of them from
    other problems, never from those it is tested on; without it each is tried before any is tried again.

    Preserves nothing: the best plan by the verifier of all that were made answers, and inherits its errors. Source:
    Parmar et al., "PlanGEN: A Multi-Agent Framework for Generating Planning and Reasoning Trajectories for Complex
    Problem Solving" (2025), arXiv 2502.16111; its constants are not published, and its algorithms refine an earlier
    plan where these draw their own. Raises UsageError for a prior or a record of another number of algorithms.
    """
    algorithms, prior = tuple(algorithms), tuple(prior)
    if enough is None and isinstance(reward, Reward) and not np.isfinite(reward.range).all():
        raise UsageError(
            f"plangen: {reward.name} has no finite range to take a share of; give enough=, as enough=0.95."
        )
    method = _plangen(algorithms, reward, enough, rounds, prior, played)
    if len(prior) not in (0, len(algorithms)) or (played and len(played.plays) != len(algorithms)):
        raise UsageError(
            f"plangen(prior={prior!r}, played={played!r}): one entry for each of {len(algorithms)} algorithms, as in "
            "plangen((bon, tree), reward, prior=(0.2, 0.0))."
        )
    mass, end = any(m.needs_mass for m in algorithms), any(m.needs_end for m in algorithms)
    return replace(method, name="plangen", needs_mass=mass, needs_end=end)


@procedure(decide=decide.best_reward)
def _plangen(
    algorithms: Annotated[tuple[Method, ...], _METHODS],
    reward: ByReward,
    enough: float | None,
    rounds: Count,
    prior: tuple[float, ...],
    played: Played | None,
) -> Exploring:
    low, high = reward.range
    enough = low + 0.975 * (high - low) if enough is None else enough
    count = len(algorithms)
    suited = np.array(prior or (0.0,) * count)
    record = played or Played((0.0,) * count, (0.0,) * count)
    first = yield from start(1)
    first = yield from step(first, until="done")
    plans = first.scored((yield from score(first, reward)))
    done, failed = list[int](), None
    for _ in range(rounds):
        best = _best(plans)
        if best >= enough:
            break
        chosen = int(np.argmax(choice(record, suited, done, failed)))
        made = yield from algorithms[chosen]()
        made = made.scored((yield from score(made, reward)))
        done.append(chosen)
        failed = chosen if _best(made) <= best else None
        plans = plans.join(made)
    return plans


def _best(population: Population) -> float:
    worth = population.scores[population.done]
    return float(np.nanmax(worth)) if len(worth) and not np.isnan(worth).all() else -np.inf
