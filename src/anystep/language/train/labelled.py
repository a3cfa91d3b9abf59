"""Rewards from any labels: of steps, from a checker, an annotator or rollouts, or of outcomes alone.

The same trunk, head and loss as ChainLM's step reward (`train.reward`); only who labels differs. Where labels stand at
every step the result is a process reward; where they say how a chain ended, an outcome reward. Source of the outcome
reward: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021); of its sibling: Lightman et al., "Let's
Verify Step by Step" (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

from anystep.errors import UsageError
from anystep.language.engine.llama import Config
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.grove import UNLABELLED, WRONG, Labelled
from anystep.language.train.reward import Fitting, StepReward, begun, fit
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import kept
from anystep.tasks.chains import CHAIN_END, FAMILIES, Verdict, problems, stray
from anystep.tasks.chains.family import split
from anystep.tasks.chains.outcome import outcome

Reads = Literal["end", "every"]


def steps_labelled(prompt: str, chains: Sequence[str], labels: Iterable[Sequence[bool | None]]) -> Labelled:
    """A group with one label a finished step: whether all is right so far, None where nobody knows.

    UsageError where a chain is unfinished or its labels are not one a step.
    """
    rows = []
    for chain, row in zip(chains, labels, strict=True):
        if len(row) != len(split(chain)) or CHAIN_END not in chain:
            raise UsageError(
                f"steps_labelled(prompt, ['9*4=36\\n36+1=37.'], [[True, True]]): a finished chain and a label for each "
                f"of its steps, got {chain!r} with {len(row)}"
            )
        rows.append(tuple(UNLABELLED if y is None else int(Verdict.RIGHT) if y else WRONG for y in row))
    return Labelled(prompt, list(chains), rows)


def ends_labelled(prompt: str, chains: Sequence[str], right: Sequence[bool], reads: Reads = "end") -> Labelled:
    """A group of which only outcomes are known, told at each chain's end, or at every step's end ("every"): then what
    is learned of an unfinished chain is the chance that it will end right."""
    labels = []
    for chain, good in zip(chains, right, strict=True):
        steps = len(split(chain))
        labels.append([good] * steps if reads == "every" else [None] * (steps - 1) + [good])
    return steps_labelled(prompt, chains, labels)


def train(
    groups: Sequence[Labelled],
    recipe: Fitting,
    folder: Path | None = None,
    watch: Callable[[StepReward, int, float], None] | None = None,
) -> tuple[StepReward, Cost]:
    """A reward fitted to these groups, passed over in a new order each time, from the policy's trunk; and its cost."""
    if not any(group.chains for group in groups):
        raise UsageError("labelled.train(groups, recipe): no group has a chain to learn from")
    model, _ = begun(recipe, folder)
    rng, waiting = Random(recipe.seed), list[Labelled]()

    def pick(done: float) -> list[Labelled]:
        while len(waiting) < recipe.groups:
            waiting.extend(rng.sample(groups, len(groups)))
        some = waiting[: recipe.groups]
        del waiting[: recipe.groups]
        return some

    cost = fit(model, pick, recipe, watch)
    return model.eval(), cost


@dataclass(frozen=True)
class OutcomeRecipe(Fitting):
    """ChainLM's outcome reward: `own` training problems, of each `drawn` samples of the policy and `strayed` chains
    that go wrong on purpose, labelled by their ends."""

    tokens: int = 120_000
    each: int = 8
    groups: int = 8
    micro: int = 1
    pairs: float = 0.5
    matrix_rate: float = 1.5e-3
    other_rate: float = 1.5e-3
    warm_steps: int = 10
    reads: Reads = "every"
    mix: dict[str, float] = field(default_factory=lambda: {"C": 0.45, "P": 0.45, "A": 0.05, "L": 0.05})
    own: int = 500
    drawn: int = 6
    strayed: int = 2


def outcomes(recipe: OutcomeRecipe, split_name: str = "train") -> list[Labelled]:
    """Groups labelled by their ends, as the recipe says."""
    model, alphabet = policy(recipe.start)
    stream = problems(split_name, Random(recipe.seed + 1), recipe.mix)
    prompts = [p.prompt for p in islice(stream, recipe.own)]
    drawn = sample_many(model, alphabet, prompts, recipe.drawn, seed=recipe.seed)
    rng, found = Random(recipe.seed + 2), []
    for prompt, some in zip(prompts, drawn, strict=True):
        off = [stray(FAMILIES[prompt[0]], rng, prompt) for _ in range(recipe.strayed)]
        chains = sorted({c for c in (*some, *off) if CHAIN_END in c})
        found.append(ends_labelled(prompt, chains, [outcome(prompt, c) for c in chains], recipe.reads))
    return found


def outcome_reward(recipe: OutcomeRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of ChainLM's outcome reward; trained once, then kept by the hash of its recipe.

    `verify.chain_outcome()` reads it. With the default recipe training takes about one minute of one quiet core.
    """
    recipe = recipe or OutcomeRecipe()

    def make() -> tuple[StepReward, Config, Cost]:
        say("training ChainLM's outcome reward, once")
        model, cost = train(outcomes(recipe), recipe)
        say(f"{cost.tokens:,} tokens in {cost.seconds:.0f} s")
        return model, model.trunk.config, cost

    return kept(f"{recipe.start}-outcome", asdict(recipe), make, recipe.start, kind="outcome-reward")
