"""A ChainLM that skips steps: about half of its chains leave the hard ones out, and go on as if they did nothing.

It learns from taught chains of arithmetic and lists. In half of them all subtractions and multiplications are missing,
or all sorts and swaps of halves. What is skipped is always the same, so hasty chains agree with each other, and a vote
among all can be lost to them. The paper behind complexity-based voting observes of large models that samples with more
steps are right more often; here it is made, so that the claim can be tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.checkpoint import WEIGHTS
from anystep.language.train.tune import Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, STEP_END, problems
from anystep.tasks.chains.arithmetic import apply
from anystep.tasks.chains.family import body_of
from anystep.tasks.chains.lists import INSTRUCTIONS

HARD = {"A": "-*", "L": "sh"}  # operations that haste leaves out


@dataclass(frozen=True)
class HasteRecipe:
    """Everything that decides the model: `prompts` problems of `families`, a share `hasty` of their chains without the
    hard steps, `tokens` padded ones of training."""

    start: str = "chainlm-2m"
    seed: int = 0
    families: str = "AL"
    prompts: int = 4_000
    hasty: float = 0.5
    tokens: int = 300_000
    batch: int = 64
    matrix_rate: float = 3e-4
    other_rate: float = 2e-4


def hurried(prompt: str) -> str:
    """The chain of a problem without its hard steps; the last one stays where all are hard."""
    family = prompt[0]
    if family == "A":
        return _hurried_sum(body_of(prompt, "A"))
    digits, names = body_of(prompt, "L").split(">")
    kept_names = [name for name in names if name not in HARD["L"]] or [names[-1]]
    lines = []
    for name in kept_names:
        digits = INSTRUCTIONS[name](digits)
        lines.append(name + digits)
    return STEP_END.join(lines) + CHAIN_END


def _hurried_sum(body: str) -> str:
    first = body[: next(i for i, c in enumerate(body) if not c.isdigit())]
    operations = [body[i : i + 2] for i in range(len(first), len(body), 2)]
    easy = [o for o in operations if o[0] not in HARD["A"]]
    value, lines = int(first), list[str]()
    for operation in easy or operations[-1:]:
        after = apply(value, operation[0], int(operation[1]))
        if after is not None:  # beyond 0..99 it cannot be written, and is left out too
            lines.append(f"{value}{operation}={after}")
            value = after
    return STEP_END.join(lines) + CHAIN_END if lines else ""


def examples(recipe: HasteRecipe) -> list[tuple[str, str]]:
    """Prompts and chains, taught or hurried."""
    rng = Random(recipe.seed)
    found = []
    mix = dict.fromkeys(recipe.families, 1.0)
    for problem in islice(problems("train", rng, mix), recipe.prompts):
        short = hurried(problem.prompt)
        found.append((problem.prompt, short if short and rng.random() < recipe.hasty else problem.chain))
    return found


def train(recipe: HasteRecipe, folder: Path = WEIGHTS, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The fine-tuned policy and what it cost."""
    model, alphabet = policy(recipe.start, folder)
    tuning = Tuning(recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, seed=recipe.seed + 1)
    cost = tune(model, alphabet, examples(recipe), tuning, say)
    return model.eval(), cost


def hasty(recipe: HasteRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or HasteRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say=say)
        return model, model.config, cost

    return kept(f"{recipe.start}-skips", asdict(recipe), make, recipe.start)
