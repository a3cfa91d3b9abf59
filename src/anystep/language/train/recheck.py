"""A ChainLM with a recheck phrase: told to look back, it says how many of its steps stand, and goes on from there.

A line that begins with `#` is a recheck. The model writes behind it the number of steps that it keeps, of those that
stand, and then new ones: `9-4=5`, `#0`, `9*4=36`, `36+1=37.` is the chain `9*4=36`, `36+1=37.` It learns from its own
samples, cut at a step's end, with the exact checker's count of right steps and a right way on; and beside them from
whole samples, so that what it writes unasked stays what it was. The phrase itself is never learned: it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import CONTEXT, Cost
from anystep.language.train.reward import writer
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, Verdict, family_of, problems
from anystep.tasks.chains.family import split

RECHECK = "#"  # begins a recheck: a character of the alphabet that no family writes


@dataclass(frozen=True)
class RecheckRecipe:
    """Everything that decides the model.

    start: whose trunk it goes on from; that of the step reward writes as ChainLM does, and has learned what is wrong
    with a step. `prompts` problems are sampled `each` times; `rechecks` cuts of each sample are rechecked,
    of which the share `twice` where nothing stood goes on with another sample, to be rechecked again. plain: the share
    of whole samples among what it learns. tokens: padded ones.
    """

    start: str = "chainlm-2m-step-reward"
    seed: int = 0
    prompts: int = 1_600
    each: int = 4
    rechecks: int = 1
    twice: float = 0.4
    plain: float = 0.35
    tokens: int = 400_000
    batch: int = 32
    matrix_rate: float = 1e-3
    other_rate: float = 1e-3
    mix: dict[str, float] = field(default_factory=lambda: {"C": 0.45, "P": 0.45, "A": 0.05, "L": 0.05})


def rechecked(text: str) -> str:
    """The chain that is left when rechecks have been followed; a recheck that cannot be followed keeps every step."""
    body, end, rest = text.partition(CHAIN_END)
    stand: list[str] = []
    for line in body.splitlines(keepends=True):
        told = line[1:].removesuffix(STEP_END)
        if not line.startswith(RECHECK):
            stand.append(line)
        elif line.endswith(STEP_END) and told.isdecimal() and int(told) <= len(stand):
            stand = stand[: int(told)]
    return "".join(stand) + end + rest


def standing(prompt: str, steps: list[str]) -> int:
    """How many steps of an unfinished chain stand: those before the first that is wrong or leads nowhere."""
    verdicts = family_of(prompt).judge(prompt, "".join(step + STEP_END for step in steps))
    return next((i for i, verdict in enumerate(verdicts) if verdict is not Verdict.RIGHT), len(steps))


def way_on(rng: Random, prompt: str, steps: list[str]) -> str:
    """A right way on from these right steps, at each state one of the moves that keep the goal in reach."""
    family = family_of(prompt)
    state = family.start(prompt)
    for step in steps:
        state = family.moves(state)[step]
    found: list[str] = []
    while not family.met(state):
        good = [(text, after) for text, after in family.moves(state).items() if family.alive(after)]
        text, state = good[rng.randrange(len(good))]
        found.append(text)
    return STEP_END.join(found) + CHAIN_END


def recheck(rng: Random, prompt: str, samples: list[list[str]], twice: float) -> Pair | None:
    """A recheck of one of a problem's samples (as steps) and what should follow it; None where none has two steps.

    Where nothing stood, the way on may be another sample's beginning, rechecked in its turn.
    """
    long = [steps for steps in samples if len(steps) > 1]
    if not long:
        return None
    steps = rng.choice(long)
    steps = steps[: rng.randrange(1, len(steps))]
    told = "".join(step + STEP_END for step in steps) + RECHECK
    stand = standing(prompt, steps)
    if stand == 0 and rng.random() < twice:
        again = recheck(rng, prompt, samples, 0.0)
        assert again is not None
        return prompt + told + f"0{STEP_END}" + again[0][len(prompt) :], again[1]
    return prompt + told, f"{stand}{STEP_END}" + way_on(rng, prompt, steps[:stand])


def examples(recipe: RecheckRecipe, model: Llama, alphabet: Alphabet) -> list[Pair]:
    """Rechecks and whole samples, from the model's own finished samples at temperature 1."""
    rng = Random(recipe.seed)
    prompts = [p.prompt for p in islice(problems("train", rng, recipe.mix), recipe.prompts)]
    found = sample_many(model, alphabet, prompts, recipe.each, seed=recipe.seed, rows=256)
    pairs: list[Pair] = []
    for prompt, some in zip(prompts, found, strict=True):
        done = [chain for chain in some if CHAIN_END in chain]
        steps = [[step for step, _ in split(chain)] for chain in done]
        asked = [recheck(rng, prompt, steps, recipe.twice) for _ in range(recipe.rechecks * len(done))]
        pairs += [pair for pair in asked if pair is not None]
        share = recipe.plain / (1 - recipe.plain) * recipe.rechecks
        pairs += [(prompt, chain) for chain in done if rng.random() < share]
    return [(p, c) for p, c in pairs if len(p) + len(c) <= CONTEXT]


def train(recipe: RecheckRecipe, folder: Path | None = None, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The fine-tuned policy and what it cost, its samples not included."""
    model, alphabet = writer(recipe.start, folder)
    pairs = examples(recipe, model, alphabet)
    say(f"{len(pairs):,} rechecks and samples")
    tuning = Tuning(recipe.tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, seed=recipe.seed + 1)
    cost = tune(model.train(), alphabet, pairs, tuning, say)
    return model.eval(), cost


def rechecking(recipe: RecheckRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or RecheckRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        say("training a ChainLM that rechecks when told to, once")
        model, cost = train(recipe, say=say)
        return model, model.config, cost

    return kept("chainlm-2m-rechecks", asdict(recipe), make, recipe.start)
