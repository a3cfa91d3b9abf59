"""Row 172: telephone numbers planted in 2,000 tokens of documentation, looked up through a tenth of the keys.

SmolLM2 reads each text once at full cost. Then each number is asked for in a window of 128 tokens, most of which are
text; all methods see the same sinks and latest keys of the same store, and differ in what else they recall. Lookups
that full attention does not answer are left out. 2,000 tokens are within what SmolLM2 was trained on.

Stated time: five minutes on one quiet core. The text is Python's own documentation, from `pydoc_data`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pydoc_data.topics import topics
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.calibrate.interval import bootstrap_mean, paired_difference
from anystep.experiments._figures import held, ratio, table
from anystep.experiments.check import Check, Result
from anystep.language.accelerate.act_qkv import ActQKV
from anystep.process import Floats

ROW = 172
NAMES = ("Alice", "Bruno", "Clara", "David", "Elena", "Frank", "Grace", "Henry", "Irene", "Jacob", "Karen", "Lucas")
FACT, QUESTION = "\nThe phone number of {name} is {number}.\n", "\nThe phone number of {name} is"
TAIL = 96  # tokens of text that a question's window begins with


class Mean(ActQKV):
    """Asks with the window's mean query."""

    def probes(self, q: Tensor) -> Tensor:
        return q.mean(1, keepdim=True)


class Last(ActQKV):
    """Asks with the window's last query."""

    def probes(self, q: Tensor) -> Tensor:
        return q[:, -1:]


class Chance(ActQKV):
    """The ablation: as many anchors, the last one among them, the others by chance."""

    def probes(self, q: Tensor) -> Tensor:
        some = torch.randperm(q.shape[1] - 1, generator=torch.Generator().manual_seed(len(self.tokens)))
        return q[:, [*some[: self.anchors - 1].tolist(), -1]]


class Even(ActQKV):
    """The ablation: every layer recalls as many blocks."""

    def counts(self, budget: float) -> list[int]:
        total = sum(super().counts(budget))
        layers = self.engine.config.layers
        return [total // layers + (i < total % layers) for i in range(layers)]


class Slide(ActQKV):
    """A sliding window with sinks: the latest keys are all that is recalled."""

    def recall(self, layer: int, q: Tensor, n: int, count: int) -> tuple[Tensor, float]:
        return torch.cat([torch.arange(self.sinks), torch.arange(n - int(self.budget * n) + self.sinks, n)]), 1.0


METHODS: dict[str, type[ActQKV]] = {
    "ActQKV": ActQKV,
    "mean query": Mean,
    "last query": Last,
    "sliding window": Slide,
    "anchors by chance": Chance,
    "even layers": Even,
}
RIVALS = ("mean query", "last query", "sliding window")


@dataclass(frozen=True)
class Text:
    """A text with facts in it: its tokens, and for each fact the name, the number and where it stands."""

    tokens: tuple[int, ...]
    facts: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Lookup:
    """One question: the loss a token of its answer and whether every token is likeliest, by method ("full" too); the
    share of the blocks which the answer attends to most that each method recalled, of the keys that it saw, and of the
    layers that saw all of the number where it was planted; and what the layers were given."""

    loss: dict[str, float]
    right: dict[str, bool]
    recall: dict[str, float]
    keys: dict[str, float]
    planted: dict[str, float]
    counts: tuple[int, ...]
    total: int
    density: tuple[float, ...]


def planted(encode: Callable[[str], list[int]], seed: int, length: int, facts: int) -> Text:
    """`length` tokens of documentation with `facts` numbers at random places before the last window."""
    rng = Random(seed)
    words = "\n\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore").decode()
    at = rng.randrange(len(words) - 20 * length)
    names = rng.sample(NAMES, facts)
    told = [(name, str(rng.randint(1_000, 9_999))) for name in names]
    lines = [encode(FACT.format(name=name, number=number)) for name, number in told]
    body = encode(words[at : at + 20 * length])[: length - sum(map(len, lines))]
    cuts = sorted(rng.sample(range(32, len(body) - 2 * TAIL), facts))
    tokens, places, start = list[int](), [], 0
    for cut, line in zip(cuts, lines, strict=True):
        tokens += body[start:cut]
        places.append(len(tokens))
        tokens += line
        start = cut
    return Text((*tokens, *body[start:]), tuple((*pair, at) for pair, at in zip(told, places, strict=True)))


class Watch(ActQKV):
    """Full attention that notes, layer by layer, how the answer's attention is spread over the past."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine, 1.0)
        self.seen: list[Tensor] = []  # each (positions,)

    def _attend(self, n: int, t: int, counts: Sequence[int] | None, density: Tensor) -> Any:
        inner, self.seen = super()._attend(n, t, counts, density), []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = inner(layer, q, k, v)
            keys = self.store[layer, 0, :, : n + t].repeat_interleave(q.shape[1] // k.shape[1], 0)
            scores = q[0] @ keys.transpose(1, 2) / q.shape[-1] ** 0.5
            late = torch.ones(t, n + t, dtype=torch.bool).triu(n + 1)
            self.seen.append(scores.masked_fill(late, -torch.inf).softmax(-1).mean((0, 1)))
            return out

        return attend


def lent(method: ActQKV, base: ActQKV) -> ActQKV:
    """`method` with what `base` has read, the store shared."""
    method.tokens, method.store, method.density = list(base.tokens), base.store, base.density
    return method


def answered(method: ActQKV, window: Sequence[int], answer: Sequence[int]) -> tuple[float, bool]:
    """Loss a token of `answer` after `window`, and whether each is the likeliest."""
    hidden = torch.cat([method.read(window)[-1:], method.go_on(answer[:-1])] if len(answer) > 1 else [])
    logp = method.engine.model.logits(hidden).log_softmax(-1)
    wanted = torch.tensor(answer)
    return float(-logp.gather(1, wanted[:, None]).mean()), bool((logp.argmax(-1) == wanted).all())


@torch.inference_mode()
def lookups(engine: Any, text: Text, budget: float) -> list[Lookup]:
    """Every fact of the text asked for, by every method."""
    encode, found = engine.tokenizer.encode, []
    base = ActQKV(engine, budget)
    base.read(text.tokens[:-TAIL], whole=True)
    for name, number, place in text.facts:
        window = [*text.tokens[-TAIL:], *encode(QUESTION.format(name=name))]
        answer = encode(f" {number}")
        watch = lent(Watch(engine), base)
        assert isinstance(watch, Watch)
        loss, right, recall, keys, there = {}, {}, {}, {}, {}
        loss["full"], right["full"] = answered(watch, window, answer)
        ours = lent(ActQKV(engine, budget), base)
        counts = ours.counts(budget)
        for label, kind in METHODS.items():
            method = lent(kind(engine, budget), base)
            loss[label], right[label] = answered(method, window, answer)
            keys[label] = float(np.mean([len(past) for past in method.recalled])) / len(base.tokens)
            told = range(
                place + len(encode(QUESTION.format(name=name))),
                place + len(encode(FACT.format(name=name, number=number))) - 2,
            )
            there[label] = float(np.mean([set(told) <= set(past.tolist()) for past in method.recalled]))
            recall[label] = overlap(ours, watch.seen, method.recalled, counts)
        n, block = len(base.tokens), ours.block
        always = n - ours.blocks(n) * block
        total = max(0, math.floor((budget * n - always) * engine.config.layers / block))
        found.append(Lookup(loss, right, recall, keys, there, tuple(counts), total, tuple(base.density.tolist())))
    return found


def overlap(grid: ActQKV, seen: Sequence[Tensor], recalled: Sequence[Tensor], counts: Sequence[int]) -> float:
    """Of the blocks that the answer attends to most, as many a layer as it may recall, the share recalled."""
    n = len(grid.tokens)
    blocks, hit = grid.blocks(n), 0
    for attention, past, count in zip(seen, recalled, counts, strict=True):
        inside = slice(grid.sinks, grid.sinks + blocks * grid.block)
        best = attention[inside].view(blocks, -1).sum(1).topk(count).indices
        have = torch.zeros(n, dtype=torch.bool)
        have[past[past < n]] = True
        hit += int(have[inside].view(blocks, -1).all(1)[best].sum())
    return hit / max(sum(counts), 1)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    texts: int = 5,
    facts: int = 6,
    length: int = 2_000,
    budget: float = 0.1,
) -> Result:
    """Check every clause of the row. texts: how many, of `length` tokens, with `facts` numbers in each."""
    from anystep.language import load

    began = time.perf_counter()
    engine = load(model, weights="fp32") if isinstance(model, str) else model
    found = list[Lookup]()
    for i in range(texts):
        text = planted(engine.tokenizer.encode, 1_000 * (seed + 1) + i, length, facts)
        found += lookups(engine, text, budget)
        progress(f"text {i + 1} of {texts}: {sum(x.right['full'] for x in found)} of {len(found)} lookups are answered")
    kept = [x for x in found if x.right["full"]]
    checks = [
        *gaps(kept),
        *layers(found),
        *whole(engine, planted(engine.tokenizer.encode, seed, max(length // 4, 400), 1)),
    ]
    return Result("act_qkv", ROW, tuple(checks), time.perf_counter() - began, seed, notes(kept, len(found)))


def gap(found: Sequence[Lookup], method: str) -> Floats:
    return np.array([x.loss[method] - x.loss["full"] for x in found])


def gaps(kept: Sequence[Lookup]) -> list[Check]:
    """The clauses on what is lost, and on what is recalled."""
    checks, ours = [], gap(kept, "ActQKV")
    for rival in RIVALS:
        clause = f"loss over full attention's, ActQKV's share of that of {rival}"
        checks.append(held(clause, ratio(ours, gap(kept, rival)), "<=", 0.5))
    for rival in RIVALS:
        more = paired_difference([x.recall["ActQKV"] for x in kept], [x.recall[rival] for x in kept])
        checks.append(held(f"recall of the blocks most attended to, ActQKV's minus that of {rival}", more, ">", 0.0))
    clause = "ablation: loss with anchors by chance minus ActQKV's"
    checks.append(held(clause, paired_difference(list(gap(kept, "anchors by chance")), list(ours)), ">", 0.0))
    share = max((x.keys[m] for x in kept for m in METHODS), default=float("nan"))
    checks.append(Check("largest share of the past's keys that a method saw, on average over layers", share, "<=", 0.1))
    return checks


def layers(found: Sequence[Lookup]) -> list[Check]:
    """The clauses on how the total is split."""
    apart = sum(abs(sum(x.counts) - x.total) for x in found)
    agree = min(float(np.corrcoef(x.density, x.counts)[0, 1]) for x in found)
    fewest = min(len(set(x.counts)) for x in found)
    return [
        Check("blocks recalled by all layers apart from the fixed total", apart, "==", 0),
        Check("different budgets among the layers of a lookup, at least", fewest, ">=", 2),
        Check("correlation of a layer's density and its budget, least over lookups", agree, ">", 0.0),
    ]


@torch.inference_mode()
def whole(engine: Any, text: Text) -> list[Check]:
    """The clause on a budget of all."""
    ours = engine.model.logits(ActQKV(engine, 1.0).read(text.tokens)).log_softmax(-1)
    plain = engine.forward(torch.tensor([text.tokens]))[0].log_softmax(-1)
    top = plain.topk(2, -1).values
    clear = top[:, 0] - top[:, 1] > 1e-4
    differ = int((ours.argmax(-1) != plain.argmax(-1))[clear].sum())
    far = float((ours - plain).abs().max())
    return [
        Check(f"budget of all: likeliest tokens of {len(clear)} that are not full attention's", differ, "==", 0),
        Check("budget of all: largest difference of a log-probability from full attention's", far, "<=", 1e-3),
    ]


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def notes(kept: Sequence[Lookup], asked: int) -> str:
    rows: list[list[object]] = []
    for method in METHODS:
        rows.append(
            [
                method,
                str(bootstrap_mean(gap(kept, method))),
                mean([float(x.right[method]) for x in kept]),
                str(bootstrap_mean([x.recall[method] for x in kept])),
                mean([x.planted[method] for x in kept]),
                mean([x.keys[method] for x in kept]),
            ]
        )
    head = [
        "method",
        "loss over full attention's",
        "answered",
        "recall of most attended blocks",
        "layers that saw the number",
        "keys seen",
    ]
    return f"{len(kept)} of {asked} lookups are answered with full attention, and counted.\n\n{table(head, rows)}"
