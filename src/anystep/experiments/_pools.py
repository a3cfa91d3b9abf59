"""Recorded pools that several experiments decide on: one file a recipe, in the cache folder; only what is missing is
recorded, so the first to ask waits and the others read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from anystep.bench.compare import item_seed
from anystep.kept import cache_folder
from anystep.process import Reward
from anystep.search.pools import Pool, Pools
from anystep.solve import engine_for, process_for
from anystep.tasks import reasoning_gym
from anystep.tasks.chains import CHAIN_END, chains
from anystep.tasks.task import Task

Rewards = Callable[[Task], Mapping[str, Reward]]


@dataclass(frozen=True)
class PoolRecipe:
    """What decides a file of pools: `model` on the first problems of a split.

    An item's seed is that of every comparison (`item_seed`), so that a recorded pool and a live run of an experiment
    have the same samples. How many problems and samples there are is no part of it: both only grow.
    """

    model: str = "chainlm-2m"
    task: str = "chains"
    split: str = "test"
    seed: int = 0
    temperature: float = 1.0

    @property
    def path(self) -> Path:
        told = json.dumps({k: v for k, v in asdict(self).items() if (k, v) != ("temperature", 1.0)}, sort_keys=True)
        key = blake2b(told.encode(), digest_size=6).hexdigest()
        return cache_folder() / "pools" / f"{self.model}-{self.task}-{self.split}-{key}.pools.db"

    def tasks(self, problems: int) -> list[Task]:
        if self.task.startswith("chains"):  # and the families, as in chains-AL
            return list(chains(problems, self.split, self.seed, families=self.task.partition("-")[2] or None))
        return asked(self.task, problems, self.split, self.seed)


SPLITS = {"test": 1_000, "dev": 2_000}  # apart from each other and from the examples
SHOTS, FIRST_SHOT = 4, 3_000


def asked(dataset: str, problems: int, split: str, seed: int = 0) -> list[Task]:
    """Items of a reasoning-gym dataset behind four solved ones, for a model that continues text: an answer a line."""
    options = DATASETS[dataset]
    shots = reasoning_gym(dataset, SHOTS, seed=FIRST_SHOT + seed, **options)
    before = "".join(f"Question: {shot.prompt}\nAnswer: {shot.reference}\n\n" for shot in shots)
    rules = {"chat": False, "unit": "completion", "end": ("\n",), "max_tokens": 12, "at_cap": "failed"}
    return [
        replace(task, prompt=f"{before}Question: {task.prompt}\nAnswer:", extract=str.strip, generation=rules)
        for task in reasoning_gym(dataset, problems, seed=SPLITS[split] + seed, **options)
    ]


DATASETS: dict[str, dict[str, Any]] = {
    "letter_counting": {},
    "number_sequence": {},
    "products": {"min_digits": 1, "max_digits": 2},
}


def chain_rewards(task: Task) -> dict[str, Reward]:
    """What is recorded of ChainLM's chains: learned step and outcome rewards, step counts, and the exact checker."""
    from anystep import verify

    return {
        "step": verify.chain_steps(),
        "outcome": verify.chain_outcome(),
        "steps": verify.steps(end=CHAIN_END),
        "oracle": verify.oracle(task),
    }


def checked(task: Task) -> dict[str, Reward]:
    """The exact checker alone."""
    from anystep import verify

    return {"oracle": verify.oracle(task)}


def recorded(
    recipe: PoolRecipe,
    problems: int,
    n: int,
    rewards: Rewards = chain_rewards,
    labels: Sequence[str] = ("step", "outcome", "steps", "oracle"),
    say: Callable[[str], None] = lambda line: None,
    engine: Callable[[], Any] | None = None,
    read: Callable[[Task], Task] = lambda task: task,
) -> Iterator[tuple[Task, Pool]]:
    """Each problem with its pool of n samples, which is recorded first where it is not there.

    labels: the rewards that must be there. engine: of a model that has no name; one is loaded only where something is
    missing. read: a problem as this model's outputs are read.
    """
    recipe.path.parent.mkdir(parents=True, exist_ok=True)
    with Pools(recipe.path) as pools:
        for task in map(read, recipe.tasks(problems)):
            found = [a for a in pools.known(item=task.id) if a.n >= n and set(labels) <= set(a.rewards)]
            pool = pools.pool(item=task.id) if found else None
            if pool is None or len(pool) < n or not set(labels) <= set(pool.rewards):
                pool = _record(
                    pools, recipe, task, n, {k: v for k, v in rewards(task).items() if k in labels}, say, engine
                )
            yield task, pool.first(n)


def _record(
    pools: Pools,
    recipe: PoolRecipe,
    task: Task,
    n: int,
    rewards: Mapping[str, Reward],
    say: Any,
    engine: Callable[[], Any] | None,
) -> Pool:
    process = process_for(task, engine() if engine else engine_for(recipe.model), temperature=recipe.temperature)
    return pools.record(process, n, item_seed(recipe.seed, task.id), item=task.id, rewards=rewards, say=say)
