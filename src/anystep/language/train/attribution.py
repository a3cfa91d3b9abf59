"""Tuning a tiny model to attribute failures: on the three parts and then the answer, or on the answer alone.

Every arm starts from the same ChainLM and learns from the same logs, so that arms differ in what they are taught to
write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.agent_logs import AgentLog, by_replay, logs, verdict

Arm = Literal["a2p", "direct", "unnumbered", "no prediction", "no cause"]
CONTEXT = 224


@dataclass(frozen=True)
class AttributionRecipe:
    """Everything that decides a model. arm: what it is taught to write; see `target`. logs: how many it sees, again and
    again until `tokens` (padded) are through."""

    arm: Arm = "a2p"
    start: str = "chainlm-2m"
    logs: int = 12_000
    tokens: int = 1_000_000
    batch: int = 16
    matrix_rate: float = 1.5e-3
    other_rate: float = 1.5e-3
    seed: int = 0


def target(arm: Arm, log: AgentLog) -> Pair:
    """The prompt and what should follow it.

    "a2p": suspects with cause, correction and prediction, then the answer. "direct": the answer alone. The others leave
    one thing out: "unnumbered" the steps' numbers in the direct arm's log, "no prediction" what follows a correction
    (so a suspect is a cause and a correction, and all errors are listed), "no cause" the cause's letter.
    """
    answer = verdict(log)
    if arm in ("direct", "unnumbered"):
        return log.prompt(numbered=arm == "direct"), answer
    suspects = by_replay(log)
    if arm == "a2p":
        return log.prompt(), "".join(f"{s}\n" for s in suspects) + answer
    if arm == "no cause":
        return log.prompt(), "".join(f"{s.step}{str(s)[2:]}\n" for s in suspects) + answer
    listed = "".join(f"{at}{log.cause(at)}{log.corrected(at).instruction}\n" for at in log.errors)
    return log.prompt(), listed + answer


def train(recipe: AttributionRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The start's weights, tuned to write what this arm writes."""
    pairs = [target(recipe.arm, log) for log in islice(logs("train", recipe.seed), recipe.logs)]
    start, alphabet = policy(recipe.start)
    model = Llama(replace(start.config, context=CONTEXT))
    model.load_state_dict(start.state_dict())
    tuning = Tuning(recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, seed=recipe.seed)
    cost = tune(model, alphabet, pairs, tuning, say)
    return model.eval(), cost


def tuned(recipe: AttributionRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or AttributionRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model, model.config, cost

    return kept(f"attribution-{recipe.arm.replace(' ', '-')}", asdict(recipe), make, recipe.start)
