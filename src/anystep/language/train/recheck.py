"""A ChainLM with a recheck phrase: told to look back, it says how many of its steps stand, and goes on from there.

A line that begins with `#` is a recheck. The model writes behind it the number of steps that it keeps, of those that
stand, and then new ones: `9-4=5`, `#0`, `9*4=36`, `36+1=37.` is the chain `9*4=36`, `36+1=37.` It learns from its own
samples, cut at a step's end, with the exact checker's count of right steps and a right way on; and on whole samples it
is held to the writer's own next-token probabilities, so that what it writes unasked stays what it was. The phrase
itself is never learned: it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import CONTEXT, Cost
from anystep.language.train.optimise import Optimiser
from anystep.language.train.reward import writer
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import Pair, batches, kept
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, Verdict, family_of, problems
from anystep.tasks.chains.family import split

RECHECK = "#"  # begins a recheck: a character of the alphabet that no family writes


@dataclass(frozen=True)
class RecheckRecipe:
    """Everything that decides the model.

    writer: the model whose samples and whose way of writing it has. start: whose weights it goes on from; those of the
    step reward's trunk have learned what is wrong with a step. `prompts` problems are sampled `each` times, every
    sample cut once; the share `twice` of the cuts where nothing stood goes on with another sample, to be rechecked
    again. tokens: padded ones; an update has `batch` rechecks and as many whole samples. verdict: how much more than
    another token the count of standing steps weighs. writing: the weight of the divergence from the writer.
    """

    writer: str = "chainlm-2m"
    start: str = "chainlm-2m-step-reward"
    seed: int = 0
    prompts: int = 1_000
    each: int = 4
    twice: float = 0.4
    tokens: int = 280_000
    batch: int = 16
    verdict: float = 6.0
    writing: float = 2.0
    matrix_rate: float = 1e-3
    other_rate: float = 1e-3
    mix: dict[str, float] = field(default_factory=lambda: {"C": 0.4, "P": 0.4, "A": 0.1, "L": 0.1})


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


def examples(recipe: RecheckRecipe, model: Llama, alphabet: Alphabet) -> tuple[list[Pair], list[Pair]]:
    """Rechecks, and whole samples with their prompts, from the writer's own finished samples at temperature 1."""
    rng = Random(recipe.seed)
    prompts = [p.prompt for p in islice(problems("train", rng, recipe.mix), recipe.prompts)]
    found = sample_many(model, alphabet, prompts, recipe.each, seed=recipe.seed, rows=256)
    asked, plain = list[Pair](), list[Pair]()
    for prompt, some in zip(prompts, found, strict=True):
        done = [chain for chain in some if CHAIN_END in chain]
        steps = [[step for step, _ in split(chain)] for chain in done]
        lessons = [recheck(rng, prompt, steps, recipe.twice) for _ in done]
        asked += [pair for pair in lessons if pair is not None and len(pair[0]) + len(pair[1]) <= CONTEXT]
        plain += [(prompt, chain) for chain in done]
    return asked, plain


def train(recipe: RecheckRecipe, folder: Path | None = None, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The fine-tuned policy and what it cost, its samples included in seconds but not in tokens."""
    began, began_cpu = time.perf_counter(), time.process_time()
    teacher, alphabet = writer(recipe.writer, folder)
    model = writer(recipe.start, folder)[0]
    asked, plain = examples(recipe, teacher, alphabet)
    say(f"{len(asked):,} rechecks and {len(plain):,} samples")
    optimiser = Optimiser(model, recipe.matrix_rate, recipe.other_rate, warm_steps=10)
    lessons = batches(asked, alphabet, recipe.batch, recipe.seed)
    habits = batches(plain, alphabet, recipe.batch, recipe.seed + 1)
    tokens = updates = 0
    while tokens < recipe.tokens:
        (told, goal), (seen, kept_to) = next(lessons), next(habits)
        taught = corrected(model, told, goal, recipe.verdict)
        loss = taught + recipe.writing * apart(model, teacher, seen, kept_to > 0)
        loss.backward()
        tokens, updates = tokens + told.numel() + seen.numel(), updates + 1
        optimiser.step(tokens / recipe.tokens)
        if updates % 40 == 1:
            say(f"{time.perf_counter() - began:.0f} s {tokens:,} tokens: rechecks {taught.item():.3f}")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return model.eval(), Cost(tokens, 2 * updates * recipe.batch, updates, round(seconds, 1), round(cpu, 1))


def corrected(model: Llama, tokens: Tensor, targets: Tensor, verdict: float) -> Tensor:
    """The mean cross-entropy of what follows the last cue, the first token, which counts the steps, weighing more."""
    picked = targets > 0
    weight = torch.where(picked & (picked.cumsum(1) == 1), verdict, 1.0)[picked]
    each = F.cross_entropy(model.logits(model(tokens)[picked]), targets[picked], reduction="none")
    return (each * weight).sum() / weight.sum()


def apart(model: Llama, teacher: Llama, tokens: Tensor, where: Tensor) -> Tensor:
    """The mean divergence of next-token probabilities from the teacher's."""
    with torch.no_grad():
        goal = teacher.logits(teacher(tokens)[where]).log_softmax(-1)
    said = model.logits(model(tokens)[where]).log_softmax(-1)
    return F.kl_div(said, goal, reduction="batchmean", log_target=True)


def rechecking(recipe: RecheckRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or RecheckRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        say("training a ChainLM that rechecks when told to, once")
        model, cost = train(recipe, say=say)
        return model, model.config, cost

    return kept("chainlm-2m-rechecks", asdict(recipe), make, recipe.start)
