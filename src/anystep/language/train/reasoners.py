"""Small models that solve `tasks.quantities` by chains and by programs, each taught by a careless book of its own.

A book mistakes some kinds of readings in a share of its problems, so a model that learned from it errs in its own way:
its wrong plans are frequent enough to win a vote, and another model does not share all of them. False equations are
nobody's plan: the models are simply too small to calculate well. Both are what collaborative verification is about;
here they are made, so that its claims can be tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, untrained
from anystep.language.train.checkpoint import WEIGHTS, load
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, PROMPT_END, STEP_END
from anystep.tasks.quantities import (
    CHAIN,
    KINDS,
    PROGRAM,
    TRANSLATE,
    Step,
    alphabet,
    chain_of,
    misread,
    problems,
    program_of,
    stated,
    steps_of,
)

CONTEXT = 128
SHAPES = {"half": (96, 4, 3, 288), "1m": (128, 5, 4, 384)}  # dim, layers, heads, hidden


@dataclass(frozen=True)
class Reasoner:
    """Everything that decides a model. misread: the share of problems in which its book mistakes each kind of reading.

    start: who it goes on from, None for a model that begins untrained. modes: how many examples in a hundred are
    chains, programs, and chains with their programs; `tokens` counts padded ones, `rate` is the optimiser's peak.
    """

    start: Reasoner | None = None
    seed: int = 0
    size: str = "half"
    tokens: int = 900_000
    misread: Mapping[str, float] = field(default_factory=dict)
    modes: tuple[int, int, int] = (80, 20, 0)
    batch: int = 16
    rate: float = 1e-3


# What all begin with, verifiers too: it has seen every mistake as often as what is right, and only labels
# can tell which is which.
BASE = Reasoner(seed=4, tokens=1_000_000, misread=dict.fromkeys(KINDS, 0.5), modes=(65, 15, 20), rate=3e-3)
GENERATORS = {
    "A": Reasoner(BASE, 1, tokens=160_000, misread={"more": 0.6, "less": 0.6, "far": 0.6}),
    "B": Reasoner(BASE, 2, tokens=200_000, misread={"less": 0.6, "times": 0.6, "all": 0.6}),
    "C": Reasoner(BASE, 3, tokens=120_000, misread={"times": 0.6, "more": 0.6, "gap": 0.6}),
}
TRANSLATOR = Reasoner(BASE, 5, tokens=240_000, misread=BASE.misread, modes=(0, 0, 100))


def config(size: str) -> Config:
    """The Llama shape of a size, heads of 32."""
    dim, layers, heads, hidden = SHAPES[size]
    return Config(len(alphabet()), dim, layers, heads, heads, hidden, 32, context=CONTEXT)


def slipped(steps: list[Step], rng: Random, share: float = 0.2) -> str:
    """The plan as a chain in which a share of the equations is false, and what follows goes on from there."""
    wrong = (-20, -10, -3, -2, -1, 1, 2, 3, 10, 20)
    return stated(steps, {i: rng.choice(wrong) for i in range(len(steps)) if rng.random() < share})


def translation(chain: str) -> Pair:
    """A chain's prompt for the translator, and the program that its finished steps are."""
    found = steps_of(chain) or []
    return translate_prompt(chain), program_of([step for step, _ in found])


def translate_prompt(chain: str) -> str:
    """What the translator reads: the finished steps of a chain."""
    body, stop, _ = chain.partition(CHAIN_END)
    return TRANSLATE + (body if stop else body[: body.rfind(STEP_END)]) + PROMPT_END


def examples(reasoner: Reasoner) -> Iterator[Pair]:
    """Endless pages of the reasoner's book."""
    rng = Random(reasoner.seed)
    for problem in problems("train", rng):
        steps = misread(problem, reasoner.misread, rng)
        mode = rng.choices(CHAIN + PROGRAM + TRANSLATE, reasoner.modes)[0]
        if mode == CHAIN:
            yield CHAIN + str(problem), chain_of(steps)
        elif mode == PROGRAM:
            yield PROGRAM + str(problem), program_of(steps)
        else:
            chain = slipped(steps, rng)
            lines = chain.removesuffix(CHAIN_END).split(STEP_END)
            cut = rng.randrange(1, len(lines) + 1) if rng.random() < 0.2 else len(lines)
            yield translation(STEP_END.join(lines[:cut]) + CHAIN_END)


def train(reasoner: Reasoner, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The trained model and what it cost, what it started from not included."""
    if reasoner.start is None:
        model = untrained(config(reasoner.size), reasoner.seed)
    else:
        model = reasoner_of(reasoner.start, say)
    pairs = list(islice(examples(reasoner), reasoner.tokens // 56))  # each page is read about once
    tuning = Tuning(
        reasoner.tokens, reasoner.batch, reasoner.rate, reasoner.rate * 4 / 3, 30, flat=0.4, seed=reasoner.seed
    )
    return model.eval(), tune(model, alphabet(), pairs, tuning, say)


def reasoner_card(reasoner: Reasoner, say: Callable[[str], None] = print) -> Path:
    """The card of a trained reasoner, which `language.load` takes: one that ships, or one that is trained once and then
    kept by its recipe's hash."""

    def make() -> tuple[Llama, Config, Cost]:
        say(f"training a reasoner of {reasoner.size}, {reasoner.tokens:,} tokens")
        model, cost = train(reasoner, say)
        return model, model.config, cost

    recipe = asdict(reasoner)
    return shipped(recipe) or kept(f"quantities-{reasoner.size}", recipe, make, alphabet=alphabet())


def shipped(recipe: Mapping[str, Any]) -> Path | None:
    """The card that ships with anystep and was trained by this very recipe, if there is one."""
    told = json.loads(json.dumps(dict(recipe)))
    for path in sorted(WEIGHTS.glob("quantities-*.json")):
        if json.loads(path.read_text(encoding="utf-8"))["recipe"] == told:
            return path
    return None


def reasoner_of(reasoner: Reasoner, say: Callable[[str], None] = print) -> Llama:
    """A trained reasoner, in full precision."""
    return kept_reasoner(reasoner_card(reasoner, say))


def kept_reasoner(card: Path) -> Llama:
    """The model of a card."""
    tensors, told = load(card.stem, card.parent)
    model = Llama(told.config)
    model.load_state_dict(tensors)
    return model.eval()
