"""A ChainLM that reckons in three formats, told by a letter which, and that says of its own lines whether they hold.

First it learns every format on the same problems, each as often as the others, from the beginning of a problem and from
the middle of one, behind lines of any format; the letter behind the problem that names a format is given, never
learned. Then it learns to
answer one character behind a line: whether the line's value is right, from its own samples and an exact checker's
labels. Beside that it goes on learning the formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.checkpoint import load
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet
from anystep.tasks.reckoning import FORMATS, MARKS, Reckoning, reckonings, steps

CONTEXT = 224
ASK, HOLDS, FAILS = "&", "V", "!"  # behind a line: does it hold?
CHECKED = "-formats"  # in the names of models that have learned this

LIKE = Reckoning(821, (("+", 376), ("-", 95)))  # how a format writes it is in the hash of what was trained


@dataclass(frozen=True)
class FormatsRecipe:
    """Everything that decides the model. Tokens are padded ones: `tokens` for the formats, then `more` for checks, of
    which `asked` problems are sampled `each` times in a format each. middle: the share of pairs that begin behind other
    lines. emphasis: how much more than another token a check's answer counts.
    """

    start: str = "chainlm-2m"
    seed: int = 0
    tokens: int = 3_000_000
    more: int = 600_000
    asked: int = 1_500
    each: int = 2
    middle: float = 0.4
    emphasis: float = 6.0
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
    """Endless pairs of the first part."""
    rng = Random(f"pairs:{recipe.seed}")
    for _, _, problem in reckonings("train", Random(recipe.seed)):
        yield pair(problem, rng, recipe.middle)


def checks(recipe: FormatsRecipe, model: Llama, alphabet: Alphabet) -> Iterator[Pair]:
    """One line of each sample, all right before it, and the letter that says whether it holds."""
    rng = Random(f"checks:{recipe.seed}")
    problems = islice(reckonings("train", Random(recipe.seed + 1)), recipe.asked)
    prompts = [pair(problem, rng, recipe.middle)[0] for _, _, problem in problems]
    found = sample_many(model, alphabet, prompts, recipe.each, seed=recipe.seed, rows=256, longest=CONTEXT - 40)
    for prompt, some in zip(prompts, found, strict=True):
        question, told = prompt[: prompt.index("?") + 1], prompt[prompt.index("?") + 2 :]  # without the letter
        for text in some:
            labels = steps(question, told + text)[told.count(STEP_END) :]
            lines = text.split(STEP_END)
            wrong = labels.index(False) if False in labels else len(labels) - 1
            for last in sorted({rng.randrange(wrong + 1), wrong}) if labels else ():
                said = STEP_END.join(lines[: last + 1])
                yield prompt + said + ("" if CHAIN_END in said else STEP_END) + ASK, HOLDS if labels[last] else FAILS


def begun(recipe: FormatsRecipe, say: Callable[[str], None] = print) -> Path:
    """The card of the model after the first part; kept."""
    told = {name: value for name, value in _told(recipe).items() if name not in ("more", "asked", "each", "emphasis")}

    def make() -> tuple[Llama, Config, Cost]:
        first, alphabet = policy(recipe.start)
        model = Llama(replace(first.config, context=CONTEXT))
        model.load_state_dict(first.state_dict())
        some = list(islice(pairs(recipe), 300))
        mean = sum(len(p) + len(c) for p, c in some) / len(some)
        taught = list(islice(pairs(recipe), max(recipe.batch, int(recipe.tokens / mean))))
        cost = tune(model, alphabet, taught, _tuning(recipe, recipe.tokens, recipe.seed), say)
        return model.eval(), model.config, cost

    return kept("formats-begun", told, make, recipe.start)


def train(recipe: FormatsRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The model of a recipe and what it cost, its samples included in neither."""
    card = begun(recipe, say)
    tensors, told = load(card.stem, card.parent)
    model, alphabet = Llama(told.config), Alphabet(told.alphabet.symbols)
    model.load_state_dict(tensors)
    asked = list(checks(recipe, model.eval(), alphabet))
    say(f"{len(asked):,} checks, of which {sum(c == HOLDS for _, c in asked):,} hold")
    habits = islice(pairs(replace(recipe, seed=recipe.seed + 2)), len(asked) // 2)
    emphasis = {HOLDS: recipe.emphasis, FAILS: recipe.emphasis}
    tuning = replace(_tuning(recipe, recipe.more, recipe.seed + 1), emphasis=emphasis)
    cost = tune(model.train(), alphabet, [*asked, *habits], tuning, say)
    whole = {name: told.cost[name] + getattr(cost, name) for name in vars(cost)}
    return model.eval(), Cost(**whole)


def _tuning(recipe: FormatsRecipe, tokens: int, seed: int) -> Tuning:
    return Tuning(tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, warm_steps=20, flat=0.4, seed=seed)


def formats(recipe: FormatsRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or FormatsRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model, model.config, cost

    return kept(f"chainlm-2m{CHECKED}", _told(recipe), make, recipe.start)


def _told(recipe: FormatsRecipe) -> dict[str, Any]:
    return {**asdict(recipe), "like": [f"{LIKE}{MARKS[form]}{LIKE.lines(form)}" for form in FORMATS]}
