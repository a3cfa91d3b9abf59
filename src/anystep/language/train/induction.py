"""A tiny proposer of rules, and its direct twin: of one size, trained on as many tokens of the same problems.

The proposer reads examples and writes a rule (`tasks.rules`); of a rule that was tried, with or without where it
failed, it writes a better one; and it applies a given rule to lists, which is what the gap to the interpreter is
measured with. Its twin reads the same examples and the unseen lists, and writes what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, small, untrained
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.chains import Alphabet
from anystep.tasks.rules import BECOMES, END, SEPARATOR, Problem, applying, mistaken, problems, revised, wide

CONTEXT = 200


@dataclass(frozen=True)
class InductionRecipe:
    """Everything that decides a model, which starts from nothing. `tokens` counts padded ones, `batch` pairs an update.

    kind: the proposer of rules, or its direct twin. revising: the share of the proposer's pairs that show a rule to be
    improved, a quarter of them without its failures; applying: the share that show a rule to be applied.
    """

    kind: Literal["rules", "direct"] = "rules"
    tokens: int = 1_300_000
    batch: int = 16
    revising: float = 0.25
    applying: float = 0.1
    dim: int = 96
    layers: int = 4
    matrix_rate: float = 3e-3
    other_rate: float = 4e-3
    seed: int = 0

    @property
    def config(self) -> Config:
        return small(self.dim, self.layers, CONTEXT)


def pair(problem: Problem, recipe: InductionRecipe, rng: Random) -> Pair:
    """What the model of a recipe learns from a problem."""
    inputs = [x for x, _ in problem.unseen]
    outputs = SEPARATOR.join(wide(y) for _, y in problem.unseen) + END
    if recipe.kind == "direct":
        return _with_examples(problem.direct, outputs)
    u = rng.random()
    if u < recipe.applying:
        return applying(str(problem.rule), inputs), outputs
    if u < recipe.applying + recipe.revising:
        tried = f"{mistaken(problem.rule, rng)}{END}"
        return revised(problem.prompt, tried, failures=rng.random() < 0.75), f"{problem.rule}{END}"
    return _with_examples(problem.prompt, f"{problem.rule}{END}")


def _with_examples(prompt: str, text: str) -> Pair:
    """The outputs that a request shows are learned from too: all but the first can be told from those before."""
    at = prompt.index(BECOMES) + 1
    return prompt[:at], prompt[at:] + text


def pairs(recipe: InductionRecipe) -> Iterator[Pair]:
    """Endless pairs, of problems that are the same for both kinds."""
    rng = Random(f"pairs:{recipe.seed}")
    for problem in problems("train", Random(recipe.seed)):
        yield pair(problem, recipe, rng)


def train(recipe: InductionRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The model of a recipe, and what it cost."""
    model = untrained(recipe.config, recipe.seed)
    taught = list(islice(pairs(recipe), max(recipe.batch, recipe.tokens // 55)))  # each is met about once
    tuning = Tuning(
        recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, warm_steps=50, flat=0.4, seed=recipe.seed
    )
    cost = tune(model, Alphabet(), taught, tuning, say)
    return model.eval(), cost


def inducer(recipe: InductionRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of a trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or InductionRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model, model.config, cost

    return kept(f"induction-{recipe.kind}", asdict(recipe), make)
