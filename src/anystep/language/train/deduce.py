"""A tiny reasoner that writes Natural Programs, and verifiers that are tuned to check their steps.

The reasoner is ChainLM, briefly tuned on right chains (`tasks.premises`), so it makes mistakes. A verifier, of half a
million parameters, learns from chains with planted errors to name in one letter what is wrong with a step, if anything;
what it is shown besides the step is its recipe's `context`. Right steps it also learns to write, which is how it learns
to count. The probability of "y" among the letters is its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy, small, untrained
from anystep.language.train.tune import Pair, Tuning, batches, kept, tune
from anystep.tasks.chains import Alphabet
from anystep.tasks.premises import Fault, Planted, judge, plant, problems
from anystep.tasks.premises.asking import Asked, Context, asked, compact

CONTEXT = 400  # more characters than premises, a chain of eight steps and a check take
LETTERS = {Fault.NONE: "y", Fault.RESULT: "r", Fault.RULE: "o", Fault.OPERAND: "n", Fault.UNCITED: "c"}
YES, NO = "y", "ronc"


@dataclass(frozen=True)
class ReasonerRecipe:
    """Everything that decides the reasoner: ChainLM, which can look things up and count already, tuned in `rounds` of
    `tokens` padded ones of right chains of one level, `batch` chains an update."""

    start: str = "chainlm-2m"
    level: int = 1
    rounds: int = 2
    tokens: int = 350_000
    batch: int = 16
    matrix_rate: float = 2e-3
    other_rate: float = 2.7e-3
    seed: int = 0


@dataclass(frozen=True)
class VerifierRecipe:
    """Everything that decides a verifier, which starts from nothing: `updates` of `batch` checks each, every check of
    another problem and seen once.

    wrong: the share of checks whose step is wrong. Verifiers of different contexts are shown the same steps.
    """

    context: Context = "cited"
    updates: int = 160
    batch: int = 32
    wrong: float = 0.5
    dim: int = 128
    layers: int = 3
    matrix_rate: float = 4e-3
    other_rate: float = 5e-3
    seed: int = 1

    @property
    def config(self) -> Config:
        return small(self.dim, self.layers, CONTEXT)


LONG = VerifierRecipe(updates=1_150)  # about as many tokens as 160 updates take where a check shows the whole chain


def checks(split: str, n: int, seed: int, context: Context, wrong: float = 0.5) -> Iterator[tuple[Planted, int, Asked]]:
    """`n` steps to be checked, each of another problem: the chain with what was planted in it, which step, the check.

    Which chains and steps they are does not depend on the context.
    """
    r = Random(seed)
    for problem in islice(problems(split, seed), n):
        planted = plant(r, problem, errors=r.choice((1, 1, 2)))
        bad = r.random() < wrong
        rows = [i for i, kind in enumerate(planted.kinds) if (kind is not None) == bad]
        row = r.choice(rows)
        yield planted, row, list(asked(problem.prompt(), planted.text, context))[row]


def letter(check: Asked) -> str:
    """What a verifier should say of a check; of a step that cites what is not there, that something is not cited."""
    return LETTERS.get(judge(check.statement, check.known), "c")


def pairs(recipe: VerifierRecipe) -> list[Pair]:
    """What a verifier learns from: checks and their letters; of a right step the step itself is to be written too."""
    drawn = checks("train", recipe.updates * recipe.batch, recipe.seed, recipe.context, recipe.wrong)
    return [_pair(check) for _, _, check in drawn]


def _pair(check: Asked) -> Pair:
    prompt, said = compact(check.lines, check.step), letter(check)
    begins = len(compact(check.lines, "")) - 1 if said == YES else len(prompt)
    return prompt[:begins], prompt[begins:] + said


def train_reasoner(
    recipe: ReasonerRecipe, start: Llama, seed: int, say: Callable[[str], None] = print
) -> tuple[Llama, Cost]:
    """One round of tuning that starts as `start`, and what it cost."""
    model = Llama(replace(start.config, context=CONTEXT))
    model.load_state_dict(start.state_dict())
    drawn = islice(problems("train", seed, recipe.level), recipe.tokens // 70)
    taught = [(p.prompt(), p.text()) for p in drawn]
    tuning = Tuning(recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, 50, 0.4, seed)
    return model, tune(model, Alphabet(), taught, tuning, say)


def reasoner(recipe: ReasonerRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the reasoner, which `language.load` takes; trained once, then kept by the hash of its recipe, as is
    each round before the last."""
    recipe = recipe or ReasonerRecipe()
    seed = recipe.seed + recipe.rounds - 1

    def make() -> tuple[Llama, Config, Cost]:
        before = reasoner(replace(recipe, rounds=recipe.rounds - 1), say) if recipe.rounds > 1 else None
        start, _ = policy(before.stem, before.parent) if before else policy(recipe.start)
        model, cost = train_reasoner(recipe, start, seed, say)
        return model, model.config, cost

    return kept("premises-reasoner", asdict(recipe), make, recipe.start)


def train_verifier(recipe: VerifierRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """A verifier, and what it cost."""
    model, alphabet, taught = untrained(recipe.config, recipe.seed), Alphabet(), pairs(recipe)
    seen = islice(batches(taught, alphabet, recipe.batch, recipe.seed), recipe.updates)
    tokens = sum(rows.numel() for rows, _ in seen)
    tuning = Tuning(tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, 50, 0.4, recipe.seed)
    return model, tune(model, alphabet, taught, tuning, say)


def verifier(recipe: VerifierRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of a verifier, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or VerifierRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train_verifier(recipe, say)
        return model, model.config, cost

    return kept(f"premises-verifier-{recipe.context}", asdict(recipe), make)
