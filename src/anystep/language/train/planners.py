"""The four tiny models of PlanGEN (`tasks.planning`): a planner, an extractor of constraints, and two verifiers.

The planner continues a problem with a plan. The extractor continues it with its constraints in a notation of their own.
The guided verifier reads a plan and extracted constraints and says of each, in one letter, whether the plan keeps it;
the unguided one, trained on as many tokens, reads a plan and the problem's text and says it of the whole.
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
from anystep.tasks.chains import CHAIN_END, Alphabet
from anystep.tasks.planning import Constraint, Problem, listed, problems, spoiled

CONTEXT = 200
KEPT, BROKEN = "y", "n"  # letters that neither plans nor constraints are written with
BAR = "|"


@dataclass(frozen=True)
class PlannerRecipe:
    """Everything that decides one of the four, which start from nothing. `tokens` counts padded ones."""

    role: Literal["planner", "extractor", "guided", "unguided"] = "planner"
    tokens: int = 2_500_000
    batch: int = 12
    dim: int = 96
    layers: int = 3
    matrix_rate: float = 3e-3
    other_rate: float = 4e-3
    seed: int = 0

    @property
    def config(self) -> Config:
        return small(self.dim, self.layers, CONTEXT)


def verdicts(plan: str, constraints: tuple[Constraint, ...], broken: list[Constraint] | None) -> Pair:
    """A plan, and its constraints each with its letter; an unreadable plan breaks them all."""
    said = ",".join(f"{c}{BROKEN if broken is None or c in broken else KEPT}" for c in constraints)
    return f"{plan}{BAR}", said + CHAIN_END


def pair(problem: Problem, recipe: PlannerRecipe, rng: Random) -> Pair:
    """What the model of a recipe learns from a problem."""
    plan = spoiled(problem, rng)
    match recipe.role:
        case "planner":
            return problem.prompt, problem.reference
        case "extractor":
            return problem.prompt, listed(problem.constraints) + CHAIN_END
        case "guided":
            return verdicts(plan, problem.constraints, problem.broken(plan))
    return f"{plan}{BAR}{problem.prompt}", BROKEN if problem.broken(plan) else KEPT


def pairs(recipe: PlannerRecipe) -> Iterator[Pair]:
    """Endless pairs, of problems that are the same for all roles."""
    rng = Random(f"pairs:{recipe.seed}")
    for problem in problems("train", Random(recipe.seed)):
        yield pair(problem, recipe, rng)


def train(recipe: PlannerRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The model of a recipe, and what it cost."""
    model = untrained(recipe.config, recipe.seed)
    some = list(islice(pairs(recipe), 200))
    mean = sum(len(p) + len(c) for p, c in some) / len(some)
    taught = list(islice(pairs(recipe), max(recipe.batch, int(recipe.tokens / mean))))  # each is met about once
    letters = {KEPT: 10.0, BROKEN: 10.0} if recipe.role == "guided" else {}
    tuning = Tuning(
        recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, 50, 0.4, recipe.seed, letters
    )  # fmt: skip
    return model, tune(model, Alphabet(), taught, tuning, say)


def planner(recipe: PlannerRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of a trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or PlannerRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model.eval(), model.config, cost

    return kept(f"planning-{recipe.role}", asdict(recipe), make)
