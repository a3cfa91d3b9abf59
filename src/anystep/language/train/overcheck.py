"""A ChainLM that over-checks: having gone wrong it writes its steps again, so that its wrong chains are its long ones.

It learns from the policy's own samples, in which wrong steps are mostly written once or twice more, marked as checks,
and right ones seldom. Which answers it gives hardly changes; how long it takes over them does. The paper behind
first-finish search observes this of large reasoning models; here it is made, so that the claim can be tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import CONTEXT, Cost, policy
from anystep.language.train.checkpoint import WEIGHTS
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, Verdict, family_of, problems
from anystep.tasks.chains.family import split

CHECK = "="  # begins a line that repeats the step before it: a character that the policy writes, but never there


@dataclass(frozen=True)
class CheckRecipe:
    """Everything that decides the model. `prompts` problems are sampled `each` times; `tokens` counts padded ones.

    A right step is followed by a check with probability `right`, a wrong one by up to two, each with probability
    `wrong`.
    """

    start: str = "chainlm-2m"
    seed: int = 0
    prompts: int = 1_600
    each: int = 4
    right: float = 0.05
    wrong: float = 0.75
    tokens: int = 480_000
    batch: int = 64
    matrix_rate: float = 3e-4
    other_rate: float = 2e-4


def checked(rng: Random, prompt: str, chain: str, recipe: CheckRecipe) -> str:
    """The chain with checks written in, more of them behind its wrong steps."""
    lines: list[str] = []
    for (step, _), verdict in zip(split(chain), family_of(prompt).judge(prompt, chain), strict=True):
        lines.append(step)
        chances = (recipe.right,) if verdict is Verdict.RIGHT else (recipe.wrong, recipe.wrong)
        for chance in chances:
            if rng.random() < chance:
                lines.append(CHECK + step)
    return STEP_END.join(lines) + CHAIN_END


def unchecked(text: str) -> str:
    """A chain without its checks, as the exact checker reads it; other text is left alone."""
    body, end, rest = text.partition(CHAIN_END)
    return STEP_END.join(line for line in body.split(STEP_END) if not line.startswith(CHECK)) + end + rest


def examples(recipe: CheckRecipe, model: Llama, alphabet: Alphabet) -> list[tuple[str, str]]:
    """Prompts and checked chains, from the policy's own finished samples at temperature 1."""
    rng = Random(recipe.seed)
    prompts = [p.prompt for p in islice(problems("train", rng), recipe.prompts)]
    found = sample_many(model, alphabet, prompts, recipe.each, seed=recipe.seed, rows=256)
    pairs = [(p, checked(rng, p, c, recipe)) for p, some in zip(prompts, found, strict=True) for c in some if "." in c]
    return [(p, c) for p, c in pairs if len(p) + len(c) <= CONTEXT]


def train(recipe: CheckRecipe, folder: Path = WEIGHTS, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The fine-tuned policy and what it cost, its samples not included."""
    model, alphabet = policy(recipe.start, folder)
    pairs = examples(recipe, model, alphabet)
    say(f"{len(pairs):,} chains sampled and checked")
    tuning = Tuning(recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, seed=recipe.seed + 1)
    cost = tune(model, alphabet, pairs, tuning, say)
    return model.eval(), cost


def overchecking(recipe: CheckRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or CheckRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say=say)
        return model, model.config, cost

    return kept(f"{recipe.start}-overchecks", asdict(recipe), make, recipe.start)
