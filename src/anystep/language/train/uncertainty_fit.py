"""Training an uncertainty head: read a frozen model's insides once, then fit the head on labelled steps.

Nothing of the model changes. The paper weighs wrong steps threefold, as they are rare there; here about half are.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.kept import cache_folder
from anystep.language.engine.engine import Engine
from anystep.language.internals import Inside, reader
from anystep.language.prefill import portions
from anystep.language.train.uncertainty import Head, UncertaintyHead, batches, load, save, shape_of
from anystep.language.train.worked import Chain, ChainsRecipe, chains_of


@dataclass(frozen=True)
class HeadRecipe:
    """Everything that decides a head, given its chains: what it reads, its shape, and how it is fitted.

    batch: chains an update. weight: of wrong steps in the loss.
    """

    inside: Inside
    hidden: int = 128
    layers: int = 2
    heads: int = 8
    epochs: int = 8
    batch: int = 16
    rate: float = 5e-4
    decay: float = 0.1
    dropout: float = 0.1
    weight: float = 1.0
    seed: int = 0


@torch.inference_mode()
def read(engine: Engine, chains: Sequence[Chain], inside: Inside) -> list[Tensor]:
    """Features (tokens, width) of what each chain wrote, in half precision, from one pass over what is not cached."""
    own, found = reader(engine, inside), list[Tensor]()
    with own.lock:
        for at in range(0, len(chains), 128):
            some = chains[at : at + 128]
            sequences = [chain.tokens[:-1] for chain in some]
            for part in portions(own, sequences):
                with own.open(own.plan([sequences[i] for i in part.tolist()])) as session:
                    for row, i in enumerate(part.tolist()):
                        chain = some[i]
                        rows = inside.read(session, row, chain.start, chain.tokens[chain.start :])
                        found.append(rows[: chain.ends[-1] - chain.start].half())
            own.cache.trim(0)
    return found


def relative(chains: Sequence[Chain]) -> list[list[int]]:
    """Where each chain's steps end, counted from where it begins."""
    return [[end - chain.start for end in chain.ends] for chain in chains]


def fit(
    engine: Engine,
    chains: Sequence[Chain],
    recipe: HeadRecipe,
    dev: Sequence[Chain] = (),
    features: Sequence[Tensor] | None = None,
    say: Callable[[str], None] = print,
) -> Head:
    """A head for `engine`, fitted on the labels of `chains`; on `dev` its temperature is fitted, where there are any.

    features: what `read` gave for `chains` and then `dev`, where it was read before.
    Raises UsageError for labels that are all alike.
    """
    labels = [label for chain in chains for label in chain.labels]
    if len(set(labels)) < 2:
        raise UsageError(f"fit: {len(labels)} steps, and not both right and wrong ones among them; give more chains.")
    began, began_cpu = time.perf_counter(), time.process_time()
    if features is None:
        features = read(engine, [*chains, *dev], recipe.inside)
    shape = shape_of(recipe.inside, engine.config, recipe.hidden, recipe.layers, recipe.heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = UncertaintyHead(shape, recipe.dropout)
        optimise(module, features[: len(chains)], chains, recipe, say)
    module.eval().requires_grad_(False)
    if dev:
        module.temperature.fill_(temperature(module, features[len(chains) :], dev))
    cost = {"steps": len(labels), "seconds": round(time.perf_counter() - began, 1)}
    cost |= {"cpu_seconds": round(time.process_time() - began_cpu, 1)}
    return Head(module, recipe.inside, engine.name, asdict(recipe), cost)


def optimise(
    module: UncertaintyHead,
    features: Sequence[Tensor],
    chains: Sequence[Chain],
    recipe: HeadRecipe,
    say: Callable[[str], None],
) -> None:
    """AdamW with a short warm-up and a linear fall, binary cross-entropy of every step's label."""
    every = torch.cat(list(features))[:: max(1, sum(map(len, features)) // 8192)].float()
    module.mean.copy_(every.mean(0))
    module.spread.copy_(every.std(0).clamp(min=1e-4))
    ends, rng = relative(chains), Random(recipe.seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    total = recipe.epochs * math.ceil(len(chains) / recipe.batch)
    done, order = 0, list(range(len(chains)))
    weight = torch.tensor(recipe.weight)
    module.train()
    for epoch in range(recipe.epochs):
        rng.shuffle(order)
        losses = []
        for at in range(0, len(order), recipe.batch):
            some = order[at : at + recipe.batch]
            tokens = list(module.embed(torch.cat([features[i] for i in some])).split([len(features[i]) for i in some]))
            wrong = torch.tensor([not label for i in some for label in chains[i].labels], dtype=torch.float32)
            logits = torch.cat([module(*batch) for batch in batches(tokens, [ends[i] for i in some])])
            loss = F.binary_cross_entropy_with_logits(logits, wrong, pos_weight=weight)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * min((done + 1) / (0.05 * total + 1), 1 - done / total)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.item())
            done += 1
        say(f"uncertainty head: epoch {epoch + 1} of {recipe.epochs}, loss {np.mean(losses):.3f}")


def temperature(module: UncertaintyHead, features: Sequence[Tensor], chains: Sequence[Chain]) -> float:
    """What the log-odds must be divided by for the likelihood of these labels to be greatest; 0.05 to 20."""
    from scipy.optimize import minimize_scalar  # imported late: slow, and needed in training alone

    odds = np.array([x for row in module.log_odds(features, relative(chains)) for x in row]) * float(module.temperature)
    sign = np.array([-1.0 if label else 1.0 for chain in chains for label in chain.labels])
    found = minimize_scalar(
        lambda t: np.logaddexp(0, -sign * odds / math.exp(t)).mean(), bounds=(-3, 3), method="bounded"
    )
    return math.exp(float(found.x))


@dataclass(frozen=True)
class ModelRecipe:
    """A head for a model known by name: the chains it writes itself, over which it is trained, and how."""

    head: HeadRecipe
    train: tuple[ChainsRecipe, ...]
    dev: tuple[ChainsRecipe, ...] = field(default=())

    @property
    def model(self) -> str:
        return self.train[0].model


# A line's end, a space, ` =`, the signs and the digits: of 42,781 tokens written on training problems all but 37.
SMOLLM2_WORDS = (198, 216, 446, 731, 1232, 1672, *range(32, 42))
CHAIN_PROBLEMS = {"C": 150, "P": 150, "A": 30, "L": 30}
SMOLLM2 = ModelRecipe(
    HeadRecipe(
        Inside(shortlist=SMOLLM2_WORDS, values=(11, 14, 17, 20, 23, 26), final=True),
        hidden=64,
        epochs=6,
        batch=32,
        rate=1e-3,
    ),
    (ChainsRecipe("counts", 280, 3), ChainsRecipe("stories", 280, 3)),
    (ChainsRecipe("counts", 60, 4, "dev"), ChainsRecipe("stories", 60, 4, "dev")),
)
CHAINLM = ModelRecipe(  # the head that ships
    HeadRecipe(Inside(probabilities=4, values=(2, 4), final=True), hidden=32, epochs=5, batch=32, rate=1e-3),
    tuple(ChainsRecipe(family, n, 4, model="chainlm-2m") for family, n in CHAIN_PROBLEMS.items()),
    tuple(ChainsRecipe(family, n // 6, 4, "dev", "chainlm-2m") for family, n in CHAIN_PROBLEMS.items()),
)


def kept(recipe: ModelRecipe) -> Path:
    """Where the head of a recipe is kept, once it is trained."""
    told: Any = json.dumps(asdict(recipe), sort_keys=True)
    name = f"{recipe.model}-uncertainty-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    return cache_folder() / "models" / f"{name}.safetensors"


def trained(recipe: ModelRecipe = SMOLLM2, engine: Engine | None = None, say: Callable[[str], None] = print) -> Head:
    """The head of a recipe, trained once (chains included) and then kept in the user's cache folder by its hash."""
    path = kept(recipe)
    if not path.exists():
        from anystep.language.loading import load as load_engine  # imported late: loading knows these recipes

        chains, dev = ([c for one in some for c in chains_of(one, say)] for some in (recipe.train, recipe.dev))
        save(fit(engine or load_engine(recipe.model), chains, recipe.head, dev, say=say), path)
    return load(path)
