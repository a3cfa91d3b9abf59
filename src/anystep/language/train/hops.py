"""A tiny model that follows hops: it copies where a remembered fact leads, and guesses where none is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, small, untrained
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet
from anystep.tasks.hops import CLOSE, OPEN, Puzzle, puzzles

CONTEXT = 160


@dataclass(frozen=True)
class HopRecipe:
    """Everything that decides the model, which starts from nothing. `tokens` counts padded ones, `batch` pairs at once.

    once: the share of pairs whose facts all stand at the beginning, with others among them; none: the share that has
    no facts. In the others each step's facts stand before it, at most `strangers` of them not the one that is needed.
    """

    tokens: int = 2_400_000
    batch: int = 16
    once: float = 0.3
    none: float = 0.1
    strangers: int = 2
    dim: int = 96
    layers: int = 3
    seed: int = 0

    @property
    def config(self) -> Config:
        return small(self.dim, self.layers, CONTEXT)


def pair(puzzle: Puzzle, recipe: HopRecipe, rng: Random) -> Pair:
    """A puzzle and its solution, with facts remembered in one of three ways."""
    needed, u = puzzle.needed(), rng.random()
    steps = [*(entity + STEP_END for entity in puzzle.path[:-1]), puzzle.path[-1] + CHAIN_END]
    if u < recipe.none:
        return puzzle.prompt, "".join(steps)
    if u < recipe.none + recipe.once:
        facts = [*needed[: rng.randint(1, len(needed))], *rng.sample(puzzle.facts.texts, rng.randint(0, 6))]
        rng.shuffle(facts)
        return puzzle.prompt + _said(facts), "".join(steps)
    text, hop = puzzle.prompt, rng.randrange(len(needed))
    for fact, step in zip(needed[: hop + 1], ["", *steps[:hop]], strict=True):
        some = [fact, *rng.sample(puzzle.facts.texts, rng.randint(0, recipe.strangers))]
        rng.shuffle(some)
        text += step + _said(some)
    return text, steps[hop]  # one step alone: what is remembered is not the model's to learn


def _said(facts: list[str]) -> str:
    return "".join(f"{OPEN}{fact}{CLOSE}" for fact in facts)


def pairs(recipe: HopRecipe) -> Iterator[Pair]:
    rng = Random(f"pairs:{recipe.seed}")
    return (pair(puzzle, recipe, rng) for puzzle in puzzles("train", Random(recipe.seed)))


def train(recipe: HopRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The model of a recipe, and what it cost."""
    model = untrained(recipe.config, recipe.seed)
    taught = list(islice(pairs(recipe), max(recipe.batch, recipe.tokens // 40)))
    tuning = Tuning(recipe.tokens, recipe.batch, 3e-3, 4e-3, warm_steps=50, flat=0.4, seed=recipe.seed)
    cost = tune(model, Alphabet(), taught, tuning, say)
    return model.eval(), cost


def hopping(recipe: HopRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or HopRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model, model.config, cost

    return kept("hops", asdict(recipe), make)
