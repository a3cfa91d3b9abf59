"""What went on inside a frozen model as it wrote: features of each written token, for heads that judge it.

A token's features are of the position that produced it, the one before it, so nothing has to be fed that writing it had
not fed. What the prefix cache keeps anyhow (the values of every layer, the last hidden state) is read from there, at no
work of the model where the writer's own engine is asked; attention to the last positions is not kept, and is collected
in the pass of an engine of its own (`Watching`). Source: the attention and probability features of arXiv 2511.06209.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.cache import Path, cut
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Config
from anystep.language.engine.packed import Packed
from anystep.language.engine.plan import Plan, Unit
from anystep.ledger import Cost


@dataclass(frozen=True)
class Inside:
    """Which features: of the position that produced a token, each kind 0 or empty where it is left out.

    attention: of every layer and head, the weights on the position itself and those before it, so many in all.
    probabilities: the so many greatest of the next token's, in order, and the written token's own, as logarithms.
    shortlist: the log-probabilities of these tokens, as if there were no others, which of them was written, and the
    written one's; that takes products with a few rows, and not with the whole vocabulary.
    values: of these layers, what the position offers to later ones: a linear reading of its hidden state there.
    final: whether the hidden state after the last norm.
    """

    attention: int = 0
    probabilities: int = 0
    shortlist: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    final: bool = False

    def __post_init__(self) -> None:
        for name in ("shortlist", "values"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a card has a list
        if not (self.attention or self.probabilities or self.shortlist or self.values or self.final):
            raise UsageError(
                "Inside() reads nothing; write Inside(attention=3, probabilities=4), or Inside(final=True)."
            )

    def width(self, config: Config) -> int:
        """Numbers a token."""
        return sum(self.widths(config))

    def widths(self, config: Config) -> tuple[int, ...]:
        """Numbers a token of each kind in order: attention, probabilities, the shortlist, values by layer, final."""
        attention = self.attention * config.layers * config.heads
        values = (config.kv_heads * config.head_dim,) * len(self.values)
        listed = 2 * len(self.shortlist) + 1 if self.shortlist else 0
        return (attention, self.probabilities and self.probabilities + 1, listed, *values, self.final * config.dim)

    def flops(self, engine: Engine, tokens: int) -> float:
        """What reading so many tokens takes beside the engine's passes: the logits, where they are asked for."""
        listed = 2.0 * tokens * (len(self.shortlist) + 1) * engine.config.dim if self.shortlist else 0.0
        return listed + (engine.flops(0, 0, heads=tokens) if self.probabilities else 0.0)

    def read(self, session: Decoding, row: int, start: int, tokens: Sequence[int]) -> Tensor:
        """(count, width) features of `tokens`, which stand from `start` on behind what `row` begins with; the session
        has read up to, and need not have read, the last of them."""
        first, last = start - 1, start - 1 + len(tokens)
        states, dim = session.states(row)[first:last], session.engine.config.dim
        parts = [states[:, dim:]] if self.attention else []
        if self.probabilities:
            logs = session.engine.model.logits(states[:, :dim]).log_softmax(-1)
            own = logs.gather(-1, torch.tensor(tokens)[:, None])
            parts += [logs.topk(self.probabilities, -1).values.clamp(min=-12.0), own.clamp(min=-12.0)]
        if self.shortlist:
            parts.append(self._listed(session.engine, states[:, :dim], torch.tensor(tokens)))
        if self.values:
            kept = [span.keys[list(self.values), 1] for span in session.paths[row]]
            parts.append(torch.cat(kept, 2)[:, :, first:last].permute(2, 0, 1, 3).flatten(1))
        if self.final:
            parts.append(states[:, :dim])
        return torch.cat(parts, -1).float()

    def _listed(self, engine: Engine, states: Tensor, written: Tensor) -> Tensor:
        """(count, 2 * shortlist + 1): a written token that is not on the list competes with those that are."""
        listed = torch.tensor(self.shortlist)
        words = output_words(engine)
        logits = states.float() @ words[listed].float().T
        own = (states.float() * words[written].float()).sum(-1, keepdim=True)
        which = written[:, None] == listed
        total = torch.where(
            which.any(-1, keepdim=True),
            logits.logsumexp(-1, keepdim=True),
            torch.cat([logits, own], -1).logsumexp(-1, keepdim=True),
        )
        logs = [(x - total).clamp(min=-12.0) for x in (logits, own)]
        return torch.cat([logs[0], which.to(logits), logs[1]], -1)


def output_words(engine: Engine) -> Tensor:
    """(vocab, dim): what a last hidden state is multiplied with for the logits. UsageError where it is not at hand."""
    model: Any = engine.model
    if not engine.config.tied:
        raise UsageError(f"Inside(shortlist=...) reads tied embeddings, which {engine.name} has not: leave it out.")
    words: Tensor = model.embed_tokens.weight
    return words


def reader(engine: Engine, inside: Inside) -> Engine:
    """The engine to read with: `engine` itself where its cache has all that is asked for, so that nothing is computed
    which writing had computed; else one of its own on the same weights, which watches as it reads."""
    bad = [layer for layer in inside.values if not 0 <= layer < engine.config.layers]
    if bad:
        raise UsageError(f"Inside(values={inside.values}): {engine.name} has layers 0 to {engine.config.layers - 1}.")
    return Watching(engine, inside.attention) if inside.attention else engine


class Watching(Engine):
    """An engine on the model of `engine`, with a cache of its own, that keeps with each position's hidden state the
    attention weights of all layers and heads on that position and the `back` - 1 before it (layers x heads x back).

    What it reads is priced like any prefill, plus the products of queries with all keys, which give the weights.
    """

    def __init__(self, engine: Engine, back: int) -> None:
        super().__init__(engine.model, engine.tokenizer, engine.cache.limit, engine.name, live_bytes=engine.live_bytes)
        self.back = back
        self.watched = engine.config.layers * engine.config.heads * back

    @property
    def bytes_per_position(self) -> int:
        return super().bytes_per_position + self.like.element_size() * self.watched

    def price(self, plan: Plan) -> tuple[list[Cost], Cost]:
        each, once = super().price(plan)
        c = self.config
        return [cost + Cost(flops=2.0 * cost.attended * c.layers * c.heads * c.head_dim) for cost in each], once

    def _prefill(self, units: list[Unit]) -> list[Path]:
        packed = Packed(self, units)
        found = torch.zeros(len(packed), self.config.layers, self.config.heads, self.back)
        pasts = [cut(self.cache.match(unit.tokens), unit.start) for unit in units]
        hidden = self.run(packed.tokens, packed.positions, self._watch(packed.attend(), units, pasts, found))[0]
        return packed.keep(torch.cat([hidden, found.flatten(1).to(hidden)], -1))

    def _watch(self, attend: Attend, units: list[Unit], pasts: list[Path], found: Tensor) -> Attend:
        """`attend`, which also writes into `found` (positions, layers, heads, back)."""
        groups = self.config.heads // self.config.kv_heads

        def watching(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            at, window = 0, self.config.window(layer)
            for unit, past in zip(units, pasts, strict=True):
                own = slice(at, at + unit.length)
                keys = torch.cat([*(span.keys[layer, 0] for span in past), k[0, :, own].to(self.like)], 1)
                weights = attention(q[0, :, own].float(), keys.repeat_interleave(groups, 0), window)
                found[own, layer] = recent(weights, self.back).transpose(0, 1)
                at += unit.length
            return attend(layer, q, k, v)

        return watching


def attention(q: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """(heads, time, length) weights of the last positions q (heads, time, d) on all keys (heads, length, d)."""
    scores = q @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
    ahead = torch.arange(keys.shape[1]) - torch.arange(keys.shape[1] - q.shape[1], keys.shape[1])[:, None]
    hidden = (ahead > 0) if window is None else (ahead > 0) | (ahead <= -window)
    return scores.masked_fill(hidden, -math.inf).softmax(-1)


def recent(weights: Tensor, back: int) -> Tensor:
    """(heads, time, back) of weights (heads, time, length): on the position itself, the one before, ...; 0 before the
    first."""
    time, length = weights.shape[1:]
    place = torch.arange(length - time, length)[:, None] - torch.arange(back)
    there = weights.gather(-1, place.clamp(min=0).expand(len(weights), -1, -1))
    return there * (place >= 0)
