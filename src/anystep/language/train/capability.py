"""A ChainLM with a self-evaluation token: asked by one character, it tells whether it would do better starting over.

The label of a sample is its chance to win or tie against a fresh sample of the same model on the same problem, by the
exact checker: 1 for a right one, and the share of wrong ones among its siblings for a wrong one, so that a hopeless
problem says "no better" as an easy one does. The question stands behind whole samples and behind samples cut at random
points, which have the whole one's label; the loss is the cross-entropy of the one token that answers. Beside it the
model goes on learning its own samples, so that what it writes stays what it was.

Source: Manvi, Singh and Ermon, "Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better, Even
Mid-Generation" (2024), arXiv 2410.02725. Different here: all questions on one problem's samples share one pass, and a
few chains that go wrong on purpose stand beside the model's own, labelled like them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost
from anystep.language.train.optimise import Optimiser
from anystep.language.train.reward import writer
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import kept
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, family_of, problems, stray

ASK = "&"  # would a fresh sample be better?
KEEP, AGAIN = "!", "_"  # no, yes: none of the three occurs in what the policy reads and writes
TRAINED = "-capability"  # in the names of models that have learned this

Label = Literal["win or tie", "right"]


@dataclass(frozen=True)
class CapabilityRecipe:
    """Everything that decides the model.

    writer: the model whose samples and whose way of writing it has. start: whose weights it goes on from; those of the
    step reward's trunk have learned what is wrong with a step. `own` problems are sampled `drawn` times, beside
    `strayed` chains that go wrong on purpose; `tokens` counts padded ones. cuts: unfinished beginnings asked about
    beside each whole sample, half of them at a step's end, 0 for none. label: "win or tie" against the model's own
    samples, or whether the sample is "right", for comparison. writing: the weight of the divergence from the writer's
    next-token probabilities on its own samples.
    """

    writer: str = "chainlm-2m"
    start: str = "chainlm-2m-step-reward"
    seed: int = 0
    tokens: int = 420_000
    own: int = 1_000
    drawn: int = 8
    strayed: int = 2
    cuts: int = 2
    label: Label = "win or tie"
    writing: float = 2.0
    groups: int = 8
    matrix_rate: float = 1e-3
    other_rate: float = 1e-3
    warm_steps: int = 10
    mix: dict[str, float] = field(default_factory=lambda: {"C": 0.68, "A": 0.2, "L": 0.06, "P": 0.06})


@dataclass(frozen=True)
class Group:
    """A problem's distinct finished chains, how often the model wrote each (0 where it did not), and their labels."""

    prompt: str
    chains: list[str]
    counts: list[int]
    labels: list[float]


def group_of(prompt: str, drawn: Sequence[str], others: Sequence[str], label: Label) -> Group:
    """The model's own samples of a problem, unfinished ones counted as wrong, and other chains, with their labels."""
    counts = Counter(drawn)
    right = {chain: family_of(prompt).score(prompt, chain) == 1.0 for chain in {*drawn, *others}}
    wrong = sum(n for chain, n in counts.items() if not right[chain])
    chains = sorted(chain for chain in right if CHAIN_END in chain)
    labels = []
    for chain in chains:
        rivals = len(drawn) - (chain in counts)  # a sample is no rival of its own
        tie = (wrong - (chain in counts)) / max(rivals, 1)
        labels.append(1.0 if right[chain] else tie if label == "win or tie" else 0.0)
    return Group(prompt, chains, [counts[chain] for chain in chains], labels)


def groups(recipe: CapabilityRecipe, model: Llama, alphabet: Alphabet) -> list[Group]:
    """Training problems with the policy's samples at temperature 1."""
    prompts = [p.prompt for p in islice(problems("train", Random(recipe.seed), recipe.mix), recipe.own)]
    drawn = sample_many(model, alphabet, prompts, recipe.drawn, seed=recipe.seed)
    rng, found = Random(recipe.seed + 1), []
    for prompt, some in zip(prompts, drawn, strict=True):
        others = [stray(family_of(prompt), rng, prompt) for _ in range(recipe.strayed)]
        found.append(group_of(prompt, some, others, recipe.label))
    return [group for group in found if group.chains]


@dataclass(frozen=True)
class Batch:
    """Problems with their chains and questions, a row each, all (rows, time).

    branch: 0 in the prompt, -1 in padding, k in the k-th chain and its questions. asks: whether a token is a question.
    previous: where the token before it stands. weight, label: of a question. written: the weight of a chain's token in
    the next-token loss.
    """

    tokens: Tensor
    positions: Tensor
    branch: Tensor
    asks: Tensor
    previous: Tensor
    weight: Tensor
    label: Tensor
    written: Tensor

    def attend(self) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        """Each token sees its prompt and its own chain before it; nothing but itself sees a question."""
        own = (self.branch[:, None, :] == self.branch[:, :, None]) | (self.branch[:, None, :] == 0)
        before = (self.positions[:, None, :] < self.positions[:, :, None]) & ~self.asks[:, None, :].bool()
        visible = ((own & before) | torch.eye(self.tokens.shape[1], dtype=torch.bool))[:, None]

        def attending(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=q.shape[1] != k.shape[1])

        return attending


def places(rng: Random, chain: str, cuts: int) -> list[int]:
    """Where questions stand: at the chain's end, and behind `cuts` of its unfinished beginnings."""
    ends = [i + 1 for i, c in enumerate(chain) if c == STEP_END]
    within = range(1, len(chain))
    some = [rng.choice(ends if ends and rng.random() < 0.5 else within) for _ in range(cuts)] if len(chain) > 1 else []
    return [len(chain), *some]


def batch_of(some: Sequence[Group], alphabet: Alphabet, rng: Random, cuts: int, multiple: int = 16) -> Batch:
    """The groups as one batch. A chain weighs as often as it was written, one of another hand as if written once; its
    unfinished beginnings weigh as much as its end together."""
    rows = []
    for group in some:
        tokens = alphabet.encode(group.prompt)
        head = len(tokens)
        row = [(t, i, 0, 0, max(i - 1, 0), 0.0, 0.0, 0.0) for i, t in enumerate(tokens)]
        for k, (chain, count, label) in enumerate(zip(group.chains, group.counts, group.labels, strict=True), 1):
            first = len(row)
            for i, t in enumerate(alphabet.encode(chain)):
                row.append((t, head + i, k, 0, first + i - 1 if i else head - 1, 0.0, 0.0, float(count)))
            for at in places(rng, chain, cuts):
                weight = max(count, 1) * (1.0 if at == len(chain) else 1 / cuts)
                row.append((alphabet.symbols.index(ASK), head + at, k, 1, first + at - 1, weight, label, 0.0))
        rows.append(row)
    width = -(-max(map(len, rows)) // multiple) * multiple
    padded = [row + [(0, 0, -1, 0, 0, 0.0, 0.0, 0.0)] * (width - len(row)) for row in rows]
    return Batch(*(torch.tensor([[cell[i] for cell in row] for row in padded]) for i in range(8)))


def loss_of(model: Llama, writer: Llama, alphabet: Alphabet, batch: Batch, writing: float) -> Tensor:
    """The mean cross-entropy of the answering token, and `writing` times the divergence from the writer's next-token
    probabilities on what it wrote."""
    hidden = model(batch.tokens, batch.positions, batch.attend())
    asked = batch.asks > 0
    logs = model.logits(hidden[asked]).log_softmax(-1)
    keep, again = (logs[:, alphabet.symbols.index(c)] for c in (KEEP, AGAIN))
    label, weight = batch.label[asked], batch.weight[asked]
    answering = -((label * keep + (1 - label) * again) * weight).sum() / weight.sum()
    own = batch.written > 0
    with torch.no_grad():
        goal = writer.logits(_before(writer(batch.tokens, batch.positions, batch.attend()), batch, own)).log_softmax(-1)
    said = model.logits(_before(hidden, batch, own)).log_softmax(-1)
    apart = F.kl_div(said, goal, reduction="none", log_target=True).sum(-1)
    return answering + writing * (apart * batch.written[own]).sum() / batch.written[own].sum()


def _before(hidden: Tensor, batch: Batch, own: Tensor) -> Tensor:
    """The states that the tokens `own` come of."""
    return hidden.gather(1, batch.previous[..., None].expand_as(hidden))[own]


def train(
    recipe: CapabilityRecipe, folder: Path | None = None, say: Callable[[str], None] = print
) -> tuple[Llama, Cost]:
    """The fine-tuned policy and what it cost, its samples included in seconds but not in tokens."""
    began, began_cpu = time.perf_counter(), time.process_time()
    teacher, alphabet = writer(recipe.writer, folder)
    model = writer(recipe.start, folder)[0]
    found = groups(recipe, teacher, alphabet)
    say(f"{len(found):,} problems sampled, {time.perf_counter() - began:.0f} s")
    begin(model, alphabet, recipe.seed)
    rng, tokens, updates, coming = Random(recipe.seed + 2), 0, 0, iter(list[Group]())
    optimiser = Optimiser(model, recipe.matrix_rate, recipe.other_rate, recipe.warm_steps)
    while tokens < recipe.tokens:
        some = list(islice(coming, recipe.groups))
        if not some:
            coming = _passes(found, recipe.groups, rng)
            continue
        batch = batch_of(some, alphabet, rng, recipe.cuts)
        loss = loss_of(model, teacher, alphabet, batch, recipe.writing)
        loss.backward()
        tokens, updates = tokens + batch.tokens.numel(), updates + 1
        optimiser.step(tokens / recipe.tokens)
        if updates % 20 == 1:
            say(f"{time.perf_counter() - began:.0f} s {tokens:,} tokens loss {loss.item():.3f}")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return model.eval(), Cost(tokens, updates * recipe.groups, updates, round(seconds, 1), round(cpu, 1))


def begin(model: Llama, alphabet: Alphabet, seed: int) -> None:
    """Gives the three characters, which no text has taught, embeddings of the others' size."""
    rows = [alphabet.symbols.index(c) for c in (ASK, KEEP, AGAIN)]
    words = model.embed_tokens.weight.data
    noise = torch.randn(len(rows), words.shape[1], generator=torch.Generator().manual_seed(seed))
    words[rows] = noise * words.std()


def _passes(found: Sequence[Group], size: int, rng: Random) -> Iterator[Group]:
    """Every group once, those of similar length in one batch, the batches in random order."""
    order = sorted(found, key=lambda g: len(g.prompt) + sum(map(len, g.chains)) + 20 * rng.random())
    starts = list(range(0, len(order), size))
    rng.shuffle(starts)
    for at in starts:
        yield from order[at : at + size]


def capability(recipe: CapabilityRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or CapabilityRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        say("training a ChainLM with a self-evaluation token, once")
        model, cost = train(recipe, say=say)
        return model, model.config, cost

    return kept(f"chainlm-2m{TRAINED}", asdict(recipe), make, recipe.start)
