"""Recorded pools that several experiments decide on: one file a recipe, in the cache folder; only what is missing is
recorded, so the first to ask waits and the others read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from anystep.bench.compare import item_seed
from anystep.language.fetch import cache_folder
from anystep.process import Reward
from anystep.search.pools import Pool, Pools
from anystep.solve import engine_for, process_for
from anystep.tasks.chains import CHAIN_END, chains
from anystep.tasks.task import Task

Rewards = Callable[[Task], Mapping[str, Reward]]


@dataclass(frozen=True)
class PoolRecipe:
    """What decides a file of pools: `model` at temperature 1 on the first problems of a split.

    An item's seed is that of every comparison (`item_seed`), so that a recorded pool and a live run of an experiment
    have the same samples. How many problems and samples there are is no part of it: both only grow.
    """

    model: str = "chainlm-2m"
    task: str = "chains"
    split: str = "test"
    seed: int = 0

    @property
    def path(self) -> Path:
        told = json.dumps(asdict(self), sort_keys=True)
        key = blake2b(told.encode(), digest_size=6).hexdigest()
        return cache_folder() / "pools" / f"{self.model}-{self.task}-{self.split}-{key}.pools.db"

    def tasks(self, problems: int) -> list[Task]:
        return list(chains(problems, self.split, self.seed))


def chain_rewards(task: Task) -> dict[str, Reward]:
    """What is recorded of ChainLM's chains: learned step and outcome rewards, step counts, and the exact checker."""
    from anystep import verify

    return {
        "step": verify.chain_steps(),
        "outcome": verify.chain_outcome(),
        "steps": verify.steps(end=CHAIN_END),
        "oracle": verify.oracle(task),
    }


def recorded(
    recipe: PoolRecipe,
    problems: int,
    n: int,
    rewards: Rewards = chain_rewards,
    labels: Sequence[str] = ("step", "outcome", "steps", "oracle"),
    say: Callable[[str], None] = lambda line: None,
    engine: Any = None,
) -> Iterator[tuple[Task, Pool]]:
    """Each problem with its pool of n samples, which is recorded first where it is not there.

    labels: the rewards that must be there. A model is loaded only where something is missing.
    """
    recipe.path.parent.mkdir(parents=True, exist_ok=True)
    with Pools(recipe.path) as pools:
        for task in recipe.tasks(problems):
            found = [a for a in pools.known(item=task.id) if a.n >= n and set(labels) <= set(a.rewards)]
            pool = pools.pool(item=task.id) if found else None
            if pool is None or len(pool) < n or not set(labels) <= set(pool.rewards):
                pool = _record(
                    pools, recipe, task, n, {k: v for k, v in rewards(task).items() if k in labels}, say, engine
                )
            yield task, pool.first(n)


def _record(
    pools: Pools, recipe: PoolRecipe, task: Task, n: int, rewards: Mapping[str, Reward], say: Any, engine: Any
) -> Pool:
    process = process_for(task, engine or engine_for(recipe.model), temperature=1.0)
    return pools.record(process, n, item_seed(recipe.seed, task.id), item=task.id, rewards=rewards, say=say)
