"""Verifiers of chains, trained on right and wrong solutions of several models: by preference, and by outcome.

Solutions are sampled from reasoners and labelled by their final answer alone. A *preference* verifier is a language
model tuned by SimPO to find right solutions likelier than wrong ones of the same problem; its score is the mean
log-probability of a solution's tokens. An *outcome* verifier is the same model with a head that is taught the label.
Both begin with the same weights and see the same solutions.

Sources: Liang et al., "Improving LLM Reasoning through Scaling Inference Computation with Collaborative Verification"
(2024), arXiv 2410.05318; Meng et al., "SimPO" (NeurIPS 2024), arXiv 2405.14734; Cobbe et al., "Training Verifiers to
Solve Math Word Problems" (2021), arXiv 2110.14168.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost
from anystep.language.train.checkpoint import load as load_checkpoint
from anystep.language.train.grove import Grove, Labelled, plant
from anystep.language.train.optimise import Optimiser
from anystep.language.train.reasoners import (
    BASE,
    GENERATORS,
    Reasoner,
    kept_reasoner,
    reasoner_card,
    reasoner_of,
    shipped,
)
from anystep.language.train.sampler import sample_many
from anystep.language.train.tune import kept
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, Verdict
from anystep.tasks.quantities import CHAIN, alphabet, judge, problems

Loss = Literal["preference", "outcome"]
LOSSES: tuple[Loss, ...] = ("preference", "outcome")


@dataclass(frozen=True)
class Training:
    """Everything that decides a verifier, with the recipes of the reasoners that it learns from and begins with.

    `problems` are shared evenly among `generators` and sampled `each` times; an update has `groups` problems with up to
    `shown` of their solutions, right and wrong; `tokens` counts padded ones. beta, gamma: SimPO's scale and margin.
    other_rate: by default 3e-3 where there is a head to learn, else as the matrices'.
    early: an outcome label's weight at the steps before the last. writer: the weight of the language model's loss on
    right solutions, which Cobbe et al. keep beside the outcome's and which SimPO has not (0 is SimPO alone).
    """

    loss: Loss
    generators: tuple[str, ...]
    seed: int = 0
    problems: int = 1_000
    each: int = 8
    shown: int = 6
    groups: int = 6
    tokens: int = 180_000
    matrix_rate: float = 8e-4
    other_rate: float | None = None
    beta: float = 2.0
    gamma: float = 1.0
    early: float = 0.3
    writer: float = 2.0


class Verifier(nn.Module):
    """A Llama trunk that finds a chain more or less likely, and for an outcome verifier a head behind each finished
    step that reads the state there and how likely the chain was so far."""

    def __init__(self, config: Config, alphabet: Alphabet, loss: Loss) -> None:
        super().__init__()
        self.alphabet, self.loss = alphabet, loss
        self.trunk = Llama(config)
        self.head = nn.Linear(config.dim + 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, grove: Grove) -> tuple[Tensor, Tensor]:
        """Each token's log-probability (rows, time), 0 outside chains, and the hidden states (rows, time, dim)."""
        hidden = self.trunk(grove.tokens, grove.positions, grove.attend())
        logs = self.trunk.logits(hidden).log_softmax(-1)
        before = logs.gather(1, grove.previous[..., None].expand_as(logs))
        return before.gather(-1, grove.tokens[..., None])[..., 0] * (grove.branch > 0), hidden

    def logits(self, hidden: Tensor, total: Tensor, length: Tensor) -> Tensor:
        """What the head says of states (..., dim) behind chains with these sums of log-probabilities and lengths."""
        likely = torch.stack([total / 4, 4 * total / length], -1)
        return self.head(torch.cat([hidden, likely], -1))[..., 0]

    def judged(self, grove: Grove, written: Tensor, hidden: Tensor) -> Tensor:
        """(rows, time): the logit behind each token of a chain, given what `forward` found."""
        written, branch = written.detach(), grove.branch.clamp(min=0)
        totals, lengths = per_chain(grove, written), per_chain(grove, torch.ones_like(written))
        before = [(x.cumsum(1) - x).gather(1, branch) for x in (totals, lengths)]  # of the row's earlier chains
        counts = (grove.branch > 0).float().cumsum(1)
        return self.logits(hidden, written.cumsum(1) - before[0], (counts - before[1]).clamp(min=1))

    def values(self, grove: Grove) -> Tensor:
        """(rows, chains + 1): what each chain of each row scores: a mean log-probability, or the last step's logit.
        Column 0 and chains that a row has not are meaningless."""
        written, hidden = self(grove)
        if self.loss == "preference":
            return per_chain(grove, written) / per_chain(grove, torch.ones_like(written)).clamp(min=1)
        branch, time = grove.branch.clamp(min=0), torch.arange(grove.branch.shape[1])
        last = torch.zeros(len(branch), int(branch.max()) + 1, dtype=torch.int64)
        last = last.scatter_reduce(1, branch, torch.where(grove.verdict >= 0, time, 0), "amax")
        return self.judged(grove, written, hidden).gather(1, last)

    @torch.inference_mode()
    def read(self, hidden: Tensor, tokens: Sequence[int], start: int) -> float:
        """The score in [0, 1] of a chain that begins at `start` of `tokens`, from the trunk's states (time, dim): the
        geometric mean of its tokens' probabilities, or the probability that its answer is or will be right."""
        logs = self.trunk.logits(hidden[start - 1 : len(tokens) - 1]).log_softmax(-1)
        written = logs.gather(-1, torch.tensor(tokens[start:])[:, None])
        if self.loss == "preference":
            return float(written.mean().exp())
        return float(self.logits(hidden[len(tokens) - 1], written.sum(), torch.tensor(float(len(written)))).sigmoid())

    @torch.no_grad()
    def scores(self, prompts: Sequence[str], chains: Sequence[Sequence[str]], siblings: int = 8) -> list[list[float]]:
        """For each prompt the scores in [0, 1] of its finished chains, as `read` gives them; equals are read once."""
        groups, places = [], []
        for i, (prompt, some) in enumerate(zip(prompts, chains, strict=True)):
            distinct = sorted(set(some))
            for at in range(0, len(distinct), siblings):
                groups.append(graded(prompt, distinct[at : at + siblings], [True] * len(distinct[at : at + siblings])))
                places.append(i)
        known: list[dict[str, float]] = [{} for _ in prompts]
        order = sorted(range(len(groups)), key=lambda g: len(groups[g].prompt) + sum(map(len, groups[g].chains)))
        for at in range(0, len(order), 64):
            some_groups = [groups[g] for g in order[at : at + 64]]
            values = self.values(plant(some_groups, self.alphabet))
            values = values.sigmoid() if self.loss == "outcome" else values.exp()
            for g, row in zip(order[at : at + 64], values.tolist(), strict=True):
                known[places[g]].update(zip(groups[g].chains, row[1:], strict=False))
        return [[mine[chain] for chain in some] for mine, some in zip(known, chains, strict=True)]


def graded(prompt: str, chains: Sequence[str], right: Sequence[bool]) -> Labelled:
    """Finished chains of a prompt, every step of each labelled by how it ended."""
    verdicts = [
        (Verdict.RIGHT if good else Verdict.FALSE,) * sum(chain.count(end) for end in (STEP_END, CHAIN_END))
        for chain, good in zip(chains, right, strict=True)
    ]
    return Labelled(prompt, list(chains), verdicts)


def solved(model: Llama, prompts: list[str], each: int, seed: int) -> list[Labelled]:
    """Each prompt's distinct finished solutions by `model` at temperature 1, labelled by their answers."""
    found = sample_many(model, alphabet(), prompts, each, seed=seed, rows=256)
    some = [sorted({c for c in chains if CHAIN_END in c}) for chains in found]
    return [graded(p, chains, [judge(p, c).right for c in chains]) for p, chains in zip(prompts, some, strict=True)]


@functools.lru_cache(maxsize=4)
def _solved_by(card: Path, count: int, each: int, seed: int) -> tuple[Labelled, ...]:
    """A reasoner's solutions of `count` training problems: several verifiers learn from the same."""
    stream = problems("train", Random(1_000 * seed + 10))
    prompts = [CHAIN + str(problem) for problem in islice(stream, count)]
    return tuple(solved(kept_reasoner(card), prompts, each, seed))


def material(training: Training, reasoners: dict[str, Reasoner], say: Callable[[str], None] = print) -> list[Labelled]:
    """Problems with both right and wrong solutions: an even share of the problems for each generator."""
    share, found = training.problems // len(training.generators), list[Labelled]()
    for place, name in enumerate(training.generators):
        card = reasoner_card(reasoners[name], say)
        own = _solved_by(card, training.problems, training.each, training.seed)
        found += own[place * share : (place + 1) * share]
    return [g for g in found if len({v[0] for v in g.verdicts if v}) == 2]


def batches(groups: Sequence[Labelled], training: Training) -> Iterator[Grove]:
    """Endless updates; of a problem with many solutions some of either kind are drawn."""
    rng, letters = Random(training.seed), alphabet()
    while True:
        some = []
        for group in rng.sample(list(groups), min(training.groups, len(groups))):
            kinds: dict[bool, list[int]] = {True: [], False: []}
            for i, verdicts in enumerate(group.verdicts):
                kinds[verdicts[0] is Verdict.RIGHT].append(i)
            half = training.shown // 2
            chosen = [i for own in kinds.values() for i in rng.sample(own, min(half, len(own)))]
            some.append(Labelled(group.prompt, [group.chains[i] for i in chosen], [group.verdicts[i] for i in chosen]))
        yield plant(some, letters)


def per_chain(grove: Grove, x: Tensor) -> Tensor:
    """(rows, chains + 1): the sum of x (rows, time) over each chain's tokens; column 0, the prompt's, is 0."""
    branch = grove.branch.clamp(min=0)
    empty = torch.zeros(len(branch), int(branch.max()) + 1)
    return empty.scatter_add(1, branch, x * (grove.branch > 0))


def loss_of(model: Verifier, grove: Grove, training: Training) -> Tensor:
    """SimPO over all pairs of a right and a wrong solution of a problem, or the outcome's cross-entropy; beside either
    the language model's own loss on right solutions."""
    written, hidden = model(grove)
    ends = grove.verdict >= 0
    wrong = per_chain(grove, (grove.verdict > Verdict.RIGHT).float()) > 0
    lengths = per_chain(grove, torch.ones_like(written))
    right = ~wrong & (lengths > 0)
    totals = per_chain(grove, written)
    writing = -training.writer * totals[right].sum() / lengths[right].sum().clamp(min=1)
    if training.loss == "preference":
        means = totals / lengths.clamp(min=1)
        pair = right[:, :, None] & wrong[:, None, :]
        return writing + preference(means[:, :, None], means[:, None, :], training)[pair].mean()
    last = grove.tokens == model.alphabet.chain_end
    weight = torch.where(last, 1.0, training.early)[ends]
    labels = (grove.verdict == Verdict.RIGHT).float()[ends]
    losses = F.binary_cross_entropy_with_logits(model.judged(grove, written, hidden)[ends], labels, reduction="none")
    return writing + (losses * weight).sum() / weight.sum()


def preference(right: Tensor, wrong: Tensor, training: Training) -> Tensor:
    """SimPO's loss of mean log-probabilities: no reference model, a margin between right and wrong."""
    return -F.logsigmoid(training.beta * (right - wrong) - training.gamma)


def train(
    training: Training,
    reasoners: dict[str, Reasoner] = GENERATORS,
    base: Reasoner = BASE,
    say: Callable[[str], None] = print,
    groups: Sequence[Labelled] | None = None,
) -> tuple[Verifier, Cost]:
    """A trained verifier and what it cost, its sampled solutions not included. groups: those, where they are there."""
    if training.loss not in LOSSES:
        raise UsageError(f"Training(loss={training.loss!r}): one of {', '.join(LOSSES)}.")
    groups = material(training, reasoners, say) if groups is None else groups
    if not groups:
        raise UsageError("train(training, groups=...): no problem has both right and wrong solutions to learn from.")
    start = reasoner_of(base, say)
    model = Verifier(start.config, alphabet(), training.loss)
    model.trunk.load_state_dict(start.state_dict())
    other = training.other_rate or (3e-3 if training.loss == "outcome" else training.matrix_rate)
    optimiser = Optimiser(model, training.matrix_rate, other, warm_steps=10, flat=0.3)
    began, began_cpu, tokens, updates = time.perf_counter(), time.process_time(), 0, 0
    for grove in batches(groups, training):
        loss = loss_of(model, grove, training)
        loss.backward()
        tokens, updates = tokens + grove.tokens.numel(), updates + 1
        optimiser.step(tokens / training.tokens)
        if updates % 20 == 1:
            say(f"{training.loss} {time.perf_counter() - began:.0f} s {tokens:,} tokens loss {loss.item():.3f}")
        if tokens >= training.tokens:
            break
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return model.eval(), Cost(tokens, updates * training.groups, updates, round(seconds, 1), round(cpu, 1))


def verifier_card(
    training: Training,
    reasoners: dict[str, Reasoner] = GENERATORS,
    base: Reasoner = BASE,
    say: Callable[[str], None] = print,
) -> Path:
    """The card of a trained verifier: one that ships, or one that is trained once and kept by the hash of its recipe
    and its reasoners'."""

    def make() -> tuple[Verifier, Config, Cost]:
        say(f"training a verifier by {training.loss} on {'+'.join(training.generators)}")
        model, cost = train(training, reasoners, base, say)
        return model, model.trunk.config, cost

    recipe = asdict(training) | {"reasoners": [asdict(reasoners[n]) for n in training.generators], "base": asdict(base)}
    name, kind = f"quantities-{training.loss}", f"{training.loss}-verifier"
    return shipped(recipe) or kept(name, recipe, make, kind=kind, alphabet=alphabet())


def verifier(path: Path) -> Verifier:
    """A kept verifier, ready to score."""
    tensors, card = load_checkpoint(path.stem, path.parent)
    model = Verifier(card.config, card.alphabet, card.recipe["loss"])
    model.load_state_dict(tensors)
    return model.eval()
