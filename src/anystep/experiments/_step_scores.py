"""What the uncertainty head is compared with, and on: surprises, a linear probe, self-judged labels, planted errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from anystep.calibrate.interval import UNKNOWN, Interval
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config
from anystep.language.internals import Inside
from anystep.language.train.uncertainty_fit import relative
from anystep.language.train.worked import Chain
from anystep.process import Floats
from anystep.tasks.lines import lines
from anystep.tasks.task import Task

RESAMPLES = 1_000


def columns(whole: Inside, part: Inside, config: Config) -> Tensor:
    """Which columns of `whole`'s features are those of `part`."""
    found, at = list[int](), 0
    kinds = (part.attention, part.probabilities, part.shortlist, *(v in part.values for v in whole.values), part.final)
    for size, wanted in zip(whole.widths(config), kinds, strict=True):
        found += range(at, at + size) if wanted else []
        at += size
    return torch.tensor(found)


@torch.inference_mode()
def surprises(engine: Engine, final: Sequence[Tensor], chains: Sequence[Chain]) -> dict[str, Floats]:
    """Uncertainty of each step, in order, from the next-token probabilities alone; `final`: the last hidden states.

    Of the entropy, the surprise of the written token and that of the likeliest one: the step's mean and its greatest.
    The mean surprise is the logarithm of the step's perplexity.
    """
    found: dict[str, list[float]] = {}
    for states, chain in zip(final, chains, strict=True):
        logs = engine.model.logits(states.float()).log_softmax(-1)
        written = torch.tensor(chain.tokens[chain.start : chain.start + len(states)])
        each = {
            "token entropy": -(logs.exp() * logs).sum(-1),
            "perplexity": -logs.gather(-1, written[:, None])[:, 0],
            "max probability": -logs.max(-1).values,
        }
        begin = 0
        for end in (e - chain.start for e in chain.ends):
            for name, x in each.items():
                found.setdefault(f"{name}, mean", []).append(float(x[begin:end].mean()))
                found.setdefault(f"{name}, greatest", []).append(float(x[begin:end].max()))
            begin = end
    return {name: np.array(x) for name, x in found.items()}


def wrong(chains: Sequence[Chain]) -> Floats:
    """1 for each step that is wrong, in order."""
    return np.array([float(not label) for chain in chains for label in chain.labels])


def owners(chains: Sequence[Chain]) -> list[str]:
    """Each step's problem."""
    return [chain.problem for chain in chains for _ in chain.labels]


def flat(rows: Sequence[Sequence[float]]) -> Floats:
    return np.array([x for row in rows for x in row])


@dataclass(frozen=True)
class Probe:
    """A logistic regression on the features of a step's last token and on their mean over the step."""

    mean: Tensor
    spread: Tensor
    slope: Tensor
    offset: Tensor

    @staticmethod
    def read(features: Sequence[Tensor], chains: Sequence[Chain]) -> Tensor:
        rows = []
        for x, ends in zip(features, relative(chains), strict=True):
            for begin, end in zip([0, *ends], ends, strict=False):
                rows.append(torch.cat([x[end - 1].float(), x[begin:end].float().mean(0)]))
        return torch.stack(rows)

    @classmethod
    def fit(cls, features: Sequence[Tensor], chains: Sequence[Chain], ridge: float) -> Probe:
        x, y = cls.read(features, chains), torch.tensor(wrong(chains), dtype=torch.float32)
        mean, spread = x.mean(0), x.std(0).clamp(min=1e-4)
        x = (x - mean) / spread
        slope, offset = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
        solver = torch.optim.LBFGS([slope, offset], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            loss = F.binary_cross_entropy_with_logits(x @ slope + offset, y) + ridge * slope.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(closure)  # type: ignore[no-untyped-call]
        return cls(mean, spread, slope.detach(), offset.detach())

    def __call__(self, features: Sequence[Tensor], chains: Sequence[Chain]) -> Floats:
        x = (self.read(features, chains) - self.mean) / self.spread
        return np.asarray((x @ self.slope + self.offset).numpy(), dtype=np.float64)


ASKED = (  # how the model is asked whether a step is right, and what it may say
    "Is the equation right?\n12 + 5 = 17\nAnswer: yes\n\nIs the equation right?\n31 + 8 = 49\nAnswer: no\n\n"
    "Is the equation right?\n4 * 6 = 26\nAnswer: no\n\nIs the equation right?\n15 - 6 = 9\nAnswer: yes\n\n"
    "Is the equation right?\n{step}\nAnswer:"
)
WORDS = (" yes", " no")


@torch.inference_mode()
def self_judged(engine: Engine, chains: Sequence[Chain], question: str, words: tuple[str, str]) -> list[Chain]:
    """The chains with labels that the model itself gave its steps, each in a prompt of its own, `question` with the
    step in it: right where the odds of the first word over the second are above their median. No checker is asked."""
    yes, no = (engine.tokenizer.encode(word)[0] for word in words)
    asked = [
        tuple(engine.tokenizer.encode(question.replace("{step}", step)))
        for chain in chains
        for step in written(engine, chain)
    ]
    odds = []
    for at in range(0, len(asked), 128):
        with engine.lock, engine.open(engine.plan(asked[at : at + 128])) as session:
            logits = session.logits()
        odds += (logits[:, yes] - logits[:, no]).tolist()
    engine.cache.trim(0)
    middle, coming = float(np.median(odds)), iter(odds)
    return [replace(chain, labels=tuple(next(coming) > middle for _ in chain.labels)) for chain in chains]


def written(engine: Engine, chain: Chain) -> list[str]:
    """The text of each step."""
    edges = [chain.start, *chain.ends]
    return [engine.tokenizer.decode(chain.tokens[a:b]).strip() for a, b in zip(edges, chain.ends, strict=False)]


def planted(engine: Engine, family: str, problems: int, seed: int) -> list[Chain]:
    """Right chains of test problems up to some line, and the same with that line's result made false."""
    rng, found = Random(seed), []
    for task in lines(problems, family, split="test", seed=seed):
        right = list(task.meta["lines"])
        at = rng.randrange(len(right))
        head, _, result = right[at].rpartition("= ")
        value = int(result)
        near = [v for v in (value + d for d in (-10, -9, -2, -1, 1, 2, 9, 10)) if v >= 0]
        false = min(int(x) for x in head.split(" or ")) if " or " in head else rng.choice(near)
        for said in (value, false):
            found.append(_chain(engine, task, [*right[:at], f"{head}= {said}"]))
    return found


def _chain(engine: Engine, task: Task, told: Sequence[str]) -> Chain:
    assert isinstance(task.prompt, str)
    tokens = engine.tokenizer.encode(task.prompt)
    start, ends = len(tokens), []
    for line in told:
        tokens = tokens + engine.tokenizer.encode(f"{line}\n")
        ends.append(len(tokens))
    labels = tuple(task.meta["judge"]("\n".join(told)))
    return Chain(tuple(tokens), start, tuple(ends), labels, task.id, float(all(labels)))


def paired_auroc(ours: Floats, theirs: Floats, y: Floats, groups: Sequence[str], seed: int = 0) -> Interval:
    """AUROC of ours minus theirs at telling y = 1, bootstrapped over groups."""
    names = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    own = np.array([names[g] for g in groups])
    if y.min(initial=1.0) == y.max(initial=0.0):
        return UNKNOWN
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    weights = np.concatenate([np.ones((1, len(y))), drawn[:, own].astype(np.float64)])
    gaps = _areas(ours, y, weights) - _areas(theirs, y, weights)
    low, high = np.nanquantile(gaps[1:], [0.025, 0.975])
    return Interval(float(gaps[0]), float(low), float(high))


def _areas(x: Floats, y: Floats, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC under each row of weights, ties half."""
    _, place = np.unique(x, return_inverse=True)
    good, bad = (np.zeros((len(weights), place.max() + 1)) for _ in range(2))
    for i, k in enumerate(place.tolist()):
        (good if y[i] else bad)[:, k] += weights[:, i]
    below = np.cumsum(bad, 1) - bad / 2
    pairs = good.sum(1) * bad.sum(1)
    area: NDArray[np.float64] = np.divide(
        (good * below).sum(1), pairs, out=np.full(len(weights), math.nan), where=pairs > 0
    )
    return area


@dataclass(frozen=True)
class Pool:
    """Chains of one problem with a score each."""

    right: Floats
    answers: tuple[object, ...]
    scores: Mapping[str, Floats]

    def best(self, name: str) -> float:
        """Whether the chain that is scored highest is right; a tie goes to the earliest."""
        return float(self.right[int(np.argmax(self.scores[name]))])

    def majority(self) -> float:
        """Whether the commonest answer's first chain is right; chains without an answer have no vote."""
        told = [a for a in self.answers if a is not None]
        if not told:
            return 0.0
        winner = max(dict.fromkeys(told), key=told.count)
        return float(self.right[self.answers.index(winner)])
