"""Tuning a tiny model to attribute failures: on the three parts and then the answer, or on the answer alone.

Every arm starts from the same ChainLM and learns from the same logs, so that arms differ in what they are taught to
write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks._draw import digest, rng
from anystep.tasks.agent_logs import AgentLog, digits, draw, logs, scaffold, verdict

Arm = Literal["a2p", "direct"]
CONTEXT = 320


@dataclass(frozen=True)
class AttributionRecipe:
    """Everything that decides a model. arm: what it is taught to write; see `target`. logs: how many it sees, again and
    again until `tokens` (padded) are through. warm: tokens before that on single turns (`turn`), the same for every
    arm: without them what a turn leaves is hardly learned in that time."""

    arm: Arm = "a2p"
    start: str = "chainlm-2m"
    logs: int = 12_000
    tokens: int = 1_000_000
    warm: int = 450_000
    warm_rate: float = 2e-3
    batch: int = 16
    matrix_rate: float = 1.5e-3
    other_rate: float = 1.5e-3
    seed: int = 0


def target(arm: Arm, log: AgentLog) -> Pair:
    """The prompt, its steps numbered in both arms, and what should follow it: "a2p" suspects with cause, correction and
    prediction, then the answer; "direct" the answer alone."""
    return log.prompt(), verdict(log) if arm == "direct" else scaffold(log)


def turn(random: Random) -> Pair:
    """One turn alone: the registers before it and what is done, then the registers after it."""
    log = draw(random)
    at = random.randrange(len(log.turns))
    before, done = log.states()[at], log.corrected(at)
    return f"{digits(before)};{done.instruction}>", f"{digits(done.after(before))}."


def train(recipe: AttributionRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The start's weights, tuned to write what this arm writes."""
    pairs = [target(recipe.arm, log) for log in islice(logs("train", recipe.seed), recipe.logs)]
    start, alphabet = policy(recipe.start)
    model = Llama(replace(start.config, context=CONTEXT))
    model.load_state_dict(start.state_dict())
    random = rng("agent-turns", recipe.seed)
    turns = [turn(random) for _ in range(20_000 if recipe.warm else 0)]
    if turns:
        rate = recipe.warm_rate
        tune(model, alphabet, turns, Tuning(recipe.warm, 128, rate, rate, flat=0.9, seed=recipe.seed), say)
    tuning = Tuning(recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, seed=recipe.seed)
    cost = tune(model, alphabet, pairs, tuning, say)
    return model.eval(), cost


def tuned(recipe: AttributionRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or AttributionRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model, model.config, cost

    taught = [target(recipe.arm, log) for log in islice(logs("train", recipe.seed), 4)]  # a new form is a new model
    told = asdict(recipe) | {"taught": digest(taught)}
    return kept(f"attribution-{recipe.arm.replace(' ', '-')}", told, make, recipe.start)
