"""The pools that experiments on decisions read: ChainLM's on chains, SmolLM2's on three reasoning-gym tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anystep.experiments._pools import DATASETS, PoolRecipe, Rewards, chain_rewards, checked, recorded
from anystep.search.pools import Pool, Pools

CHAINS, DEV, GYM = 120, 60, 30  # problems
SAMPLES = 256


def chain_pools(split: str = "test", problems: int = CHAINS, say: Callable[[str], None] = print) -> list[Pool]:
    """ChainLM's, with the learned step reward and the exact checker."""
    return kept(PoolRecipe(split=split), problems, chain_rewards, ("step", "oracle"), say)


def gym_pools(split: str = "test", problems: int = GYM, say: Callable[[str], None] = print) -> dict[str, list[Pool]]:
    """SmolLM2's, by task, with the exact checker."""
    return {
        f"SmolLM2 on {dataset.replace('_', ' ')}": kept(
            PoolRecipe("smollm2-135m", dataset, split), problems, checked, ("oracle",), say
        )
        for dataset in DATASETS
    }


def all_pools(say: Callable[[str], None] = print) -> dict[str, list[Pool]]:
    """All of the test split."""
    return {"ChainLM": chain_pools(say=say), **gym_pools(say=say)}


def kept(
    recipe: PoolRecipe, problems: int, rewards: Rewards, labels: Sequence[str], say: Callable[[str], None]
) -> list[Pool]:
    """The first samples of each problem where all are there, beside a recorder that adds to them; else recorded."""
    if recipe.path.exists():
        with Pools(recipe.path) as pools:
            known = {about.item for about in pools.known() if about.n >= SAMPLES}
            names = [task.id for task in recipe.tasks(problems)]
            found = [pools.pool(item=name).first(SAMPLES) for name in names if name in known]
        if len(found) == problems and all(set(labels) <= set(pool.rewards) for pool in found):
            return found
    return [pool for _, pool in recorded(recipe, problems, SAMPLES, rewards, labels, say=say)]
