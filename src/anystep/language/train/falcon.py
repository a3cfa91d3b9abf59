"""Trains a semi-autoregressive drafter on what its target wrote: coupled sequential glancing distillation.

A position is to tell the target's feature k later, from features and tokens up to the end of its block of k. In
training some positions are shown what they were to tell, the feature and the token of k later in place of their own,
in runs from a block's beginning on, so that the rest of the block learns to go on from them. How many is a share of
what a first pass, without gradients, gets wrong, and falls to none. Source: Gao et al., "Falcon" (AAAI 2025).
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from random import Random

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import ModelError
from anystep.kept import cache_folder
from anystep.language.accelerate.semi_autoregressive import LEAD, FalconNetwork, embedding, head_rows
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Config
from anystep.language.train.selftext import TextRecipe, Written, selftext


@dataclass(frozen=True)
class FalconRecipe:
    """Everything that decides the drafter of blocks of `k`, beside the text.

    work: what training may cost, in position-forwards: a pass counts one for each position, and three with gradients.
    So glancing, which needs a pass beforehand, pays for it with fewer updates. glance: the share of wrong positions
    that is shown at first; 0 trains without glancing, as does k = 1. noise: added to features, uniform up to so many
    of their standard deviations. token_weight: of the loss on tokens, beside that on features. kept: how often a token
    must occur in the text to be drafted.
    """

    k: int = 3
    seed: int = 0
    work: int = 300_000
    glance: float = 0.4
    batch: int = 8
    noise: float = 0.1
    token_weight: float = 0.5
    rate: float = 1e-3
    kept: int = 3


@dataclass(frozen=True)
class Lesson:
    """Padded stretches of text, all (rows, time, ...): at each position its feature, the token after it, the goal (the
    feature k later), and whether that is one of the answer's."""

    features: Tensor
    after: Tensor
    goal: Tensor
    told: Tensor

    @classmethod
    def of(cls, text: Sequence[Written], k: int) -> Lesson:
        first = [max(0, one.start - LEAD) for one in text]
        longest = max(len(one.tokens) - at for one, at in zip(text, first, strict=True))
        features = torch.zeros(len(text), longest, text[0].hidden.shape[1])
        tokens = torch.zeros(len(text), longest, dtype=torch.int64)
        answer = torch.zeros(len(text), longest, dtype=torch.bool)
        for row, (one, at) in enumerate(zip(text, first, strict=True)):
            length = len(one.tokens) - at
            features[row, :length] = one.hidden[at:].float()
            tokens[row, :length] = torch.tensor(one.tokens[at:])
            answer[row, one.start - at - 1 : length] = True
        return cls(features[:, :-k], tokens[:, 1:][:, : longest - k], features[:, k:], answer[:, k:])


def lessons(text: Sequence[Written], k: int, rows: int, seed: int) -> Iterator[Lesson]:
    """Endless, each text once an epoch; rows of similar length together."""
    rng = Random(seed)
    while True:
        order = sorted(text, key=lambda one: len(one.tokens) - one.start + 8 * rng.random())
        starts = list(range(0, len(order), rows))
        rng.shuffle(starts)
        for at in starts:
            yield Lesson.of(order[at : at + rows], k)


def relaxed(block: Tensor) -> Attend:
    """Each position sees its own block and all before; `block` (time,) numbers them."""
    seen = block[:, None] >= block[None, :]

    def attend(layer: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, enable_gqa=q.shape[1] != keys.shape[1])

    return attend


class Distilling:
    """The passes of training; the engine's embedding and output head stay as they are."""

    def __init__(self, network: FalconNetwork, engine: Engine, recipe: FalconRecipe) -> None:
        self.network, self.model, self.recipe = network, embedding(engine), recipe
        self.head = head_rows(engine, network.words)
        self.rng = torch.Generator().manual_seed(recipe.seed)

    def loss(self, lesson: Lesson, done: float) -> tuple[Tensor, int]:
        """The loss when a share `done` of training is behind us, and what its passes cost in position-forwards."""
        k, (rows, length) = self.recipe.k, lesson.told.shape
        offset = int(torch.randint(k, (), generator=self.rng))  # in use a block ends wherever the text does
        place = torch.arange(length) + offset
        with torch.no_grad():
            truth = F.log_softmax(lesson.goal @ self.head.T, -1)
        features, after, told, work = lesson.features, lesson.after, lesson.told, 3 * rows * length
        share = self.recipe.glance * (1 - done)
        if k > 1 and share > 0:
            shown = self.shown(lesson, truth.argmax(-1), place, share)
            tokens = self.network.words[truth.argmax(-1)]
            features = torch.where(shown[..., None], lesson.goal, features)
            after = torch.where(shown, tokens, after)
            told, work = told & ~shown, work + rows * length
        noise = self.recipe.noise * (2 * torch.rand(features.shape, generator=self.rng) - 1)
        told = told & self.whole(place)
        foreseen = self.forward(features + noise * self.network.spread, after, place)[told]
        distance = F.smooth_l1_loss(foreseen, (lesson.goal[told] - self.network.mean) / self.network.spread)
        ours = F.log_softmax(self.network.feature(foreseen) @ self.head.T, -1)
        apart = F.kl_div(ours, truth[told], log_target=True, reduction="batchmean")
        choice = F.nll_loss(ours, truth[told].argmax(-1))
        return distance + self.recipe.token_weight * (0.9 * apart + 0.1 * choice), work

    def forward(self, features: Tensor, after: Tensor, place: Tensor) -> Tensor:
        """Standardised features k later (rows, time, dim); blocks begin where `place` (time,) divides by k."""
        k, time = self.network.k, len(place)
        with torch.no_grad():
            inputs = self.network.inputs(features, self.model.embed(after))
        made, _ = self.network.lstm(inputs)
        positions = torch.arange(time).expand(features.shape[:2])
        end = torch.arange(time) - place % k + k - 1
        ends = end.unique().clamp_max(time - 1)
        linear = self.network.linear(inputs[:, ends]).flatten(1, 2)[:, place - place[0] // k * k]
        return self.network.foresee(made, positions, relaxed(place // k)) + linear

    def whole(self, place: Tensor) -> Tensor:
        """(time,): positions whose block ends within the text."""
        k = self.network.k
        return torch.arange(len(place)) - place % k + k <= len(place)

    @torch.no_grad()
    def shown(self, lesson: Lesson, choice: Tensor, place: Tensor, share: float) -> Tensor:
        """(rows, time): positions that are shown their goal, on average `share` of those that a first pass gets wrong.

        A block is drawn, and in it the first 1 to k - 1 positions, any number as likely: half of a drawn block, or for
        k = 2 its first position.
        """
        k, foreseen = self.network.k, self.forward(lesson.features, lesson.after, place)
        guess = (self.network.feature(foreseen[lesson.told]) @ self.head.T).argmax(-1)
        wrong = lesson.told.masked_scatter(lesson.told, guess != choice[lesson.told])
        chance = 2 * share * wrong.sum(1) / lesson.told.sum(1).clamp_min(1)
        block, blocks = place // k, int(place[-1]) // k + 1
        drawn = torch.rand(len(wrong), blocks, generator=self.rng) < chance[:, None]
        run = torch.randint(1, k, (len(wrong), blocks), generator=self.rng)
        return drawn[:, block] & (place % k < run[:, block]) & lesson.told


def vocabulary(text: Sequence[Written], kept: int) -> Tensor:
    """The tokens that occur at least `kept` times in the answers, in order."""
    counts = Counter(token for one in text for token in one.tokens[one.start :])
    return torch.tensor(sorted(token for token, count in counts.items() if count >= kept))


def begin(engine: Engine, text: Sequence[Written], recipe: FalconRecipe) -> FalconNetwork:
    """An untrained network that knows the text's vocabulary and the scale of its features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = FalconNetwork(engine.config, recipe.k, vocabulary(text, recipe.kept))
    features = torch.cat([one.hidden for one in text]).float()
    network.mean.copy_(features.mean(0))
    network.spread.copy_(features.std(0))
    with torch.no_grad():
        network.scale.copy_(embedding(engine).embed(network.words).std())
    least_squares(network, engine, text)
    return network


@torch.no_grad()
def least_squares(network: FalconNetwork, engine: Engine, text: Sequence[Written], damp: float = 0.02) -> None:
    """Sets the linear map of each place: from what a block's last position reads to the feature told at the place."""
    for place in range(network.k):
        gram, image = torch.zeros(()), torch.zeros(())
        for one in text:
            here = torch.arange(max(0, one.start - LEAD), len(one.tokens) - 1 - place)
            features, tokens = one.hidden.float(), torch.tensor(one.tokens)
            x = network.inputs(features[here], embedding(engine).embed(tokens[here + 1]))
            x = F.pad(x, (0, 1), value=1.0)
            gram, image = gram + x.T @ x, image + x.T @ ((features[here + 1 + place] - network.mean) / network.spread)
        gram = gram + damp * gram.diagonal().mean() * torch.eye(len(gram))
        network.skip[place] = torch.linalg.solve(gram, image)


def train(
    engine: Engine, text: Sequence[Written], recipe: FalconRecipe, say: Callable[[str], None] = print
) -> FalconNetwork:
    """The drafter's network, trained on `text` that `engine` wrote."""
    began, work, updates = time.thread_time(), 0, 0
    network = begin(engine, text, recipe)
    distilling = Distilling(network, engine, recipe)
    optimiser = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.95))
    for lesson in lessons(text, recipe.k, recipe.batch, recipe.seed):
        loss, cost = distilling.loss(lesson, work / recipe.work)
        loss.backward()
        work, updates = work + cost, updates + 1
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, updates / 20, 2.0 * (1.02 - work / recipe.work))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if updates % 20 == 1:
            say(f"{time.thread_time() - began:.0f} s {work:,} of {recipe.work:,} loss {loss.item():.3f}")
        if work >= recipe.work:
            break
    return network.eval()


def falcon(
    recipe: FalconRecipe | None = None, text: TextRecipe | None = None, say: Callable[[str], None] = print
) -> FalconNetwork:
    """A trained network for the model that wrote `text`, kept in the cache folder by the hash of both recipes.

    The first time the text is written (five CPU-minutes for the default) and the network trained (two).
    """
    recipe, text = recipe or FalconRecipe(), text or TextRecipe()
    told = json.dumps([asdict(recipe), asdict(text)], sort_keys=True)
    name = f"{text.model}-falcon-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    path = cache_folder() / "models" / f"{name}.safetensors"
    if not path.exists():
        from anystep.language.loading import load  # imported late: loading knows the recipes in this folder

        file_network(train(load(text.model, weights="fp32"), selftext(text, say), recipe, say), path)
    return read_network(path)


def file_network(network: FalconNetwork, path: Path) -> None:
    """Writes a network to a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = json.dumps({"k": network.k, "target": asdict(network.target)})
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as scratch:
        save_file(network.state_dict(), Path(scratch) / path.name, metadata={"falcon": shape})
        os.replace(Path(scratch) / path.name, path)


def read_network(path: Path) -> FalconNetwork:
    """What `file_network` wrote; ModelError for another file."""
    try:
        with safe_open(path, "pt") as file:
            shape = json.loads((file.metadata() or {})["falcon"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        network = FalconNetwork(Config(**shape["target"]), shape["k"], tensors["words"])
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is no drafter that language.train.falcon.falcon() trained: {error}") from error
    return network.eval().requires_grad_(False)
