"""A ChainLM that reckons in three formats, told by a letter which.

It learns every format on the same problems, each as often as the others, from the beginning of a problem and from the
middle of one, behind lines of any format; the letter behind the problem that names a format is given, never learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.chains import STEP_END
from anystep.tasks.reckoning import FORMATS, MARKS, Reckoning, reckonings

CONTEXT = 224
LIKE = Reckoning(821, (("+", 376), ("-", 95)))  # how a format writes it is in the hash of what was trained


@dataclass(frozen=True)
class FormatsRecipe:
    """Everything that decides the model. `tokens` are padded ones; middle: the share of pairs that begin behind other
    lines."""

    start: str = "chainlm-2m"
    seed: int = 0
    tokens: int = 3_000_000
    middle: float = 0.4
    batch: int = 48
    matrix_rate: float = 1.5e-3
    other_rate: float = 1.5e-3


def pair(problem: Reckoning, rng: Random, middle: float) -> Pair:
    """A problem under one format, or its middle, behind lines of any format, and the rest of it in that format."""
    told, now = "", problem
    if rng.random() < middle:
        for _ in range(rng.randrange(len(problem.left))):
            text, now = now.line(rng.choice(FORMATS[1:]))
            told += text + STEP_END
    form = rng.choice(FORMATS)
    return f"{problem}{MARKS[form]}{told}", now.lines(form)


def pairs(recipe: FormatsRecipe) -> Iterator[Pair]:
    """Endless pairs, of the train split."""
    rng = Random(f"pairs:{recipe.seed}")
    for _, _, problem in reckonings("train", Random(recipe.seed)):
        yield pair(problem, rng, recipe.middle)


def train(recipe: FormatsRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The model of a recipe, and what it cost."""
    first, alphabet = policy(recipe.start)
    model = Llama(replace(first.config, context=CONTEXT))
    model.load_state_dict(first.state_dict())
    some = list(islice(pairs(recipe), 300))
    mean = sum(len(p) + len(c) for p, c in some) / len(some)
    taught = list(islice(pairs(recipe), max(recipe.batch, int(recipe.tokens / mean))))  # each is met about once
    rates = recipe.matrix_rate, recipe.other_rate
    tuning = Tuning(recipe.tokens, recipe.batch, *rates, warm_steps=20, flat=0.4, seed=recipe.seed)
    return model, tune(model, alphabet, taught, tuning, say)


def formats(recipe: FormatsRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or FormatsRecipe()
    told = {**asdict(recipe), "like": [f"{LIKE}{MARKS[form]}{LIKE.lines(form)}" for form in FORMATS]}

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model.eval(), model.config, cost

    return kept("chainlm-2m-formats", told, make, recipe.start)
