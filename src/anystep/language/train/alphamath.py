"""AlphaMath on ChainLM: a policy and a value on one trunk, taught by tree search on final answers alone, in rounds.

In each round trees are grown on training problems, the value of the round before at their leaves and one bit from the
task's scorer at their ends. The next policy learns to write the solutions that were found, and its value what the tree
says of every step of right and wrong solutions. Each round starts from the base model.

Source: Chen et al., "AlphaMath Almost Zero: Process Supervision without Process" (NeurIPS 2024), arXiv 2405.03553.
Rates, the weight of the value's loss and how many paths a problem gives are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anystep.drive import drive
from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config, Llama
from anystep.language.engine.tokenizer import Alphabet as Spelling
from anystep.language.process import LanguageProcess
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.checkpoint import load as load_checkpoint
from anystep.language.train.grove import Grove, Labelled, plant
from anystep.language.train.optimise import Optimiser
from anystep.language.train.tune import kept
from anystep.language.value import StateValue
from anystep.ledger import Cost as Paid
from anystep.ledger import Limit
from anystep.process import Reward, Scored
from anystep.run import Run
from anystep.search import AlphaMath
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, family_of, problems

BATCH = 64  # problems whose trees grow side by side
LONGEST = 120  # tokens of a chain


class PolicyValue(nn.Module):
    """A Llama trunk that writes, with a head that reads a value off its last hidden states."""

    def __init__(self, config: Config, alphabet: Alphabet, dropout: float = 0.1) -> None:
        super().__init__()
        self.alphabet, self.trunk = alphabet, Llama(config)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(config.dim, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, grove: Grove) -> tuple[Tensor, Tensor]:
        """Values in [-1, 1] at step ends (steps,), and log-probabilities of tokens as written (rows, time)."""
        hidden = self.trunk(grove.tokens, grove.positions, grove.attend())
        logs = self.trunk.logits(hidden).log_softmax(-1)
        before = logs.gather(1, grove.previous[..., None].expand_as(logs))
        written = before.gather(-1, grove.tokens[..., None])[..., 0]
        return torch.tanh(self.head(self.drop(hidden[grove.verdict >= 0]))[:, 0]), written

    @torch.inference_mode()
    def worth(self, hidden: Tensor) -> Tensor:
        """Values mapped to [0, 1], (n,), of hidden states (n, dim)."""
        return (torch.tanh(self.head(hidden)[:, 0]) + 1) / 2


@dataclass(frozen=True)
class AlphaRecipe:
    """Everything that decides the models: `prompts` training problems a round, families and levels by weight, the
    search, and how a round learns from what it finds.

    paths: right and wrong solutions that a problem gives, at most so many of each. weigh: of the value's squared error
    beside the mean log-loss of the right solutions' tokens. tokens counts padded ones.
    """

    start: str = "chainlm-2m"
    seed: int = 0
    rounds: int = 3
    prompts: int = 192
    mix: dict[str, float] = field(default_factory=lambda: {"C": 0.85, "A": 0.15})
    levels: dict[int, float] = field(default_factory=lambda: {1: 1.0})
    simulations: int = 40
    branch: int = 5
    c: float = 0.75
    temper: float = 6.0
    paths: int = 6
    tokens: int = 120_000
    groups: int = 4
    weigh: float = 3.0
    matrix_rate: float = 7e-4
    other_rate: float = 7e-4
    warm_steps: int = 10


@dataclass(frozen=True)
class Solved(Reward):
    """The one bit that a problem's own scorer gives a finished chain; nothing is said of its steps."""

    prompt: str
    name: str = "solved"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        family = family_of(self.prompt)
        return Scored(np.array([family.score(self.prompt, text) for text in states.texts()]), Paid())


@dataclass(frozen=True)
class Found:
    """What one problem's tree gives: solutions with what it says of each of their steps, in [0, 1], and which are
    right."""

    prompt: str
    chains: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    right: tuple[bool, ...]


def search(model: PolicyValue, prompts: Sequence[str], recipe: AlphaRecipe, valued: bool, seed: int) -> list[Found]:
    """A tree a prompt, written by `model`; `valued`: its value stands at unfinished leaves, else one half does."""
    engine = engine_of(model)
    value = value_of(engine, model) if valued else None
    method = AlphaMath(value, 1, recipe.branch, recipe.simulations, recipe.c, recipe.temper)
    found = []
    for at in range(0, len(prompts), BATCH):
        some = prompts[at : at + BATCH]
        runs = [
            Run(_writing(engine, prompt), method.supervise(Solved(prompt)), seed=seed + at + i)
            for i, prompt in enumerate(some)
        ]
        answers = drive(*runs)
        found += [_found(p, answer.population, recipe.paths) for p, answer in zip(some, answers, strict=True)]
        engine.cache.trim(0)
    return found


def _writing(engine: Engine, prompt: str) -> LanguageProcess:
    return LanguageProcess(engine, prompt, stop=STEP_END, max_tokens=LONGEST, at_cap="failed", chat=False)


def _found(prompt: str, tree: Any, paths: int) -> Found:
    texts = tree.states.texts()
    value = dict(zip(texts, tree.scores.tolist(), strict=True))
    chains: list[str] = []
    for wanted in (1.0, 0.0):
        chains += [t for t in texts if t.endswith(CHAIN_END) and value[t] == wanted][:paths]
    values = [tuple(value[t[: i + 1]] for i, c in enumerate(t) if c in (STEP_END, CHAIN_END)) for t in chains]
    return Found(prompt, tuple(chains), tuple(values), tuple(value[t] == 1.0 for t in chains))


def fit(model: PolicyValue, found: Sequence[Found], recipe: AlphaRecipe, seed: int) -> Cost:
    """Trains `model` in place on what a round's trees found, passed over in a new order each time."""
    model.train()
    optimiser = Optimiser(model, recipe.matrix_rate, recipe.other_rate, recipe.warm_steps)
    learn = [f for f in found if f.chains]
    if not learn:
        raise UsageError("fit(model, found, recipe): no tree has a finished chain; give AlphaRecipe(prompts=192).")
    rng, waiting = Random(seed), list[Found]()
    began, began_cpu, tokens, updates, seen = time.perf_counter(), time.process_time(), 0, 0, 0
    with torch.random.fork_rng(devices=[]):  # dropout's draws: the same each time, and nobody else's
        torch.manual_seed(seed)
        while tokens < recipe.tokens:
            while len(waiting) < recipe.groups:
                waiting += rng.sample(learn, len(learn))
            some, waiting = waiting[: recipe.groups], waiting[recipe.groups :]
            loss, size = loss_of(model, some, recipe.weigh)
            loss.backward()
            tokens += size
            optimiser.step(tokens / recipe.tokens)
            updates, seen = updates + 1, seen + len(some)
    model.eval()
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Cost(tokens, seen, updates, round(seconds, 1), round(cpu, 1))


def loss_of(model: PolicyValue, some: Sequence[Found], weigh: float) -> tuple[Tensor, int]:
    """Mean -log p of the right solutions' tokens, plus `weigh` times the mean squared error of tanh values in [-1, 1];
    and the padded tokens read."""
    some = sorted(some, key=lambda f: len(f.prompt) + sum(map(len, f.chains)))
    goal = torch.tensor([2 * v - 1 for f in some for values in f.values for v in values])
    right = torch.tensor([good for f in some for good, values in zip(f.right, f.values, strict=True) for _ in values])
    steps, groups = iter(range(len(goal))), []
    for f in some:
        groups.append(Labelled(f.prompt, list(f.chains), [tuple(next(steps) for _ in values) for values in f.values]))
    grove = plant(groups, model.alphabet)
    value, written = model(grove)
    error = (value - goal[grove.verdict[grove.verdict >= 0]]).square().mean()
    taught = grove.step >= 0
    taught[taught.clone()] = right[grove.step[taught]]
    told = -written[taught].mean() if taught.any() else written.sum() * 0
    return told + weigh * error, grove.tokens.numel()


def begun(recipe: AlphaRecipe, folder: Path | None = None) -> PolicyValue:
    """The base model, with a head that says nothing yet."""
    base, alphabet = policy(recipe.start, folder)
    model = PolicyValue(base.config, alphabet)
    model.trunk.load_state_dict(base.state_dict())
    return model.eval()


def train(
    recipe: AlphaRecipe, folder: Path | None = None, say: Callable[[str], None] = print
) -> tuple[list[PolicyValue], list[Cost]]:
    """The model of each round and what its training took, the searches not included."""
    stream = problems("train", Random(recipe.seed + 1), recipe.mix, recipe.levels)
    model, models, costs = begun(recipe, folder), [], []
    for number in range(recipe.rounds):
        prompts = list(dict.fromkeys(p.prompt for p in islice(stream, recipe.prompts)))
        began = time.perf_counter()
        found = search(model, prompts, recipe, number > 0, recipe.seed + 7 + number * 1_000_003)
        searched = time.perf_counter() - began
        model = begun(recipe, folder)
        costs.append(fit(model, found, recipe, recipe.seed + 3 + number))
        models.append(model)
        solved = sum(any(f.right) for f in found)
        say(
            f"round {number + 1}: {solved} of {len(found)} problems solved in {searched:.0f} s of search, "
            f"{costs[-1].tokens:,} tokens learned in {costs[-1].seconds:.0f} s"
        )
    return models, costs


def alphamath(recipe: AlphaRecipe | None = None, say: Callable[[str], None] = print) -> tuple[Path, ...]:
    """The cards of each round's policy and value, which `load` reads; trained once, then kept by the recipe's hash."""
    recipe = recipe or AlphaRecipe()
    made: list[tuple[list[PolicyValue], list[Cost]]] = []

    def make(number: int) -> tuple[PolicyValue, Config, Cost]:
        if not made:
            made.append(train(recipe, say=say))
        models, costs = made[0]
        return models[number], models[number].trunk.config, costs[number]

    def card(number: int) -> Path:
        told = asdict(recipe) | {"round": number + 1}
        return kept(f"{recipe.start}-alphamath", told, lambda: make(number), recipe.start, kind="policy-value")

    return tuple(card(number) for number in range(recipe.rounds))


def load(path: Path) -> tuple[Engine, StateValue]:
    """The policy's engine, and its value as a reward that reads on that engine what the policy wrote."""
    tensors, card = load_checkpoint(path.stem, path.parent)
    model = PolicyValue(card.config, card.alphabet)
    model.load_state_dict(tensors)
    engine = engine_of(model.eval(), path.stem)
    return engine, value_of(engine, model, card.sha256[:12])


def engine_of(model: PolicyValue, name: str = "alphamath") -> Engine:
    """An engine that writes with the trunk."""
    model.requires_grad_(False)
    return Engine(model.trunk, Spelling(model.alphabet.symbols, end=CHAIN_END), name=name)


def value_of(engine: Engine, model: PolicyValue, which: str = "") -> StateValue:
    """The head as a reward over what `engine` writes."""
    return StateValue(f"{engine.name}-value", model.alphabet.step_end, which=which, engine=engine, head=model.worth)
