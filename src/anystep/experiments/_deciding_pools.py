"""The pools that experiments on decisions read: ChainLM's on chains, SmolLM2's on three reasoning-gym tasks."""

from __future__ import annotations

from collections.abc import Callable

from anystep.experiments._pools import DATASETS, PoolRecipe, checked, recorded
from anystep.search.pools import Pool

CHAINS, DEV, GYM = 120, 60, 30  # problems
SAMPLES = 256


def chain_pools(split: str = "test", problems: int = CHAINS, say: Callable[[str], None] = print) -> list[Pool]:
    """ChainLM's, with the learned step reward and the exact checker."""
    recipe = PoolRecipe(split=split)
    return [pool for _, pool in recorded(recipe, problems, SAMPLES, labels=("step", "oracle"), say=say)]


def gym_pools(split: str = "test", problems: int = GYM, say: Callable[[str], None] = print) -> dict[str, list[Pool]]:
    """SmolLM2's, by task, with the exact checker."""
    found = {}
    for dataset in DATASETS:
        recipe = PoolRecipe("smollm2-135m", dataset, split)
        every = recorded(recipe, problems, SAMPLES, checked, ("oracle",), say=say)
        found[f"SmolLM2 on {dataset.replace('_', ' ')}"] = [pool for _, pool in every]
    return found


def all_pools(say: Callable[[str], None] = print) -> dict[str, list[Pool]]:
    """All of the test split."""
    return {"ChainLM": chain_pools(say=say), **gym_pools(say=say)}
