"""ActQKV: a long past is read through few of its keys, recalled by the queries that stand out.

Keys and values are stored in blocks. When a window of new tokens comes, each layer asks the store with the window's
anchors alone: the last token, and the queries that lie farthest from the window's average (its activation bias), which
are those of the words that carry a question rather than fill it. The blocks that some anchor would attend to most are
recalled; with the first keys (sinks) and the latest ones they are all that the window sees. A layer whose attention is
spread over many blocks recalls more of them than one that points at few, within one total.

Source: "Activation-aware Probe-Query: Effective Key-Value Retrieval for Long-Context LLMs Inference", arXiv 2502.13542
(2025). Known to us from its abstract and summaries alone; how bias is measured, that anchors probe one by one, and how
the total is split are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Rotary, rotate
from anystep.ledger import Cost


class ActQKV:
    """One sequence that `engine` reads through a `budget` share of its past.

    **Preserves** nothing: what is not recalled is not seen. With budget=1 all is, and it is plain attention.

    budget: the share of its past that a layer sees on average, in (0, 1], sinks and latest keys included. window: how
    many tokens share a recall. block: keys recalled together. sinks, latest: how many first and last keys of the past
    are always seen. anchors: tokens of a window that ask, the last one included.

    tokens: what has been read. recalled: for each layer the positions that the last window saw of its past. density:
    (layers,) over how many blocks each layer's attention was spread then. spent: all that reading cost.

    Raises UsageError for a setting that cannot be meant, and for models whose layers have windows of their own.
    """

    def __init__(
        self,
        engine: Engine,
        budget: float = 0.1,
        *,
        window: int = 128,
        block: int = 16,
        sinks: int = 8,
        latest: int = 32,
        anchors: int = 16,
    ) -> None:
        if not 0 < budget <= 1 or min(window, block, anchors) < 1 or min(sinks, latest) < 0:
            raise UsageError(
                "ActQKV(engine, budget=0.1, window=128, block=16, sinks=8, latest=32, anchors=16): a budget above 0 "
                "and at most 1, and counts."
            )
        if engine.config.windows:
            raise UsageError(f"{engine.name} has layers that see a window alone; ActQKV is for models without.")
        self.engine, self.budget, self.window, self.block = engine, budget, window, block
        self.sinks, self.latest, self.anchors = sinks, latest, anchors
        c = engine.config
        self.rotary = Rotary(c.head_dim, c.rope_theta, c.rope_factors).to(engine.like.device)
        self.tokens: list[int] = []
        self.store = engine.like.new_zeros(c.layers, 3, c.kv_heads, 0, c.head_dim)  # keys, values, keys not rotated
        self.density = torch.ones(c.layers)
        self.recalled: list[Tensor] = [torch.arange(0)] * c.layers
        self.since = 0  # where the last window began: all from there on is seen
        self.spent = Cost()

    def read(self, tokens: Sequence[int], whole: bool = False) -> Tensor:
        """Reads on, window by window, each with a recall of its own; hidden states (tokens, dim). whole: each window
        sees all of its past, as when a text is first stored at full cost. Raises UsageError for no tokens, for
        unknown ones, and for more than the model's context holds."""
        self._fits(tokens)
        return torch.cat([self._window(tokens[i : i + self.window], whole) for i in range(0, len(tokens), self.window)])

    @torch.inference_mode()
    def go_on(self, tokens: Sequence[int]) -> Tensor:
        """Reads on with what the last window recalled, and all since; hidden states (tokens, dim). To decode, give one
        token at a time. Raises UsageError as `read` does."""
        self._fits(tokens)
        return self._pass(tokens, None)

    def _fits(self, tokens: Sequence[int]) -> None:
        if not len(tokens):
            raise UsageError("There is nothing to read: read([5, 6, 7]) takes one token or more.")
        self.engine.checked([tokens])
        size, context = len(self.tokens) + len(tokens), self.engine.config.context
        if size > context:
            raise UsageError(f"{size} tokens do not fit this model's context of {context}; forget(length) goes back.")

    def forget(self, length: int) -> None:
        """Back to the first `length` tokens, so that another question can be asked of them; `read` comes next."""
        if not 0 <= length <= len(self.tokens):
            raise UsageError(f"forget({length}) goes back to 0..{len(self.tokens)} tokens.")
        del self.tokens[length:]
        self.since = min(self.since, length)

    @torch.inference_mode()
    def _window(self, tokens: Sequence[int], whole: bool) -> Tensor:
        self.since = len(self.tokens)
        counts = self.counts(1.0 if whole else self.budget)
        self.recalled = []
        return self._pass(tokens, counts)

    def _pass(self, tokens: Sequence[int], counts: Sequence[int] | None) -> Tensor:
        """One pass over `tokens`; with `counts`, each layer first recalls so many blocks."""
        n, t, c = len(self.tokens), len(tokens), self.engine.config
        self._make_room(n + t)
        density = self.density.clone()
        positions = torch.arange(n, n + t)[None]
        hidden = self.engine.run(torch.tensor([list(tokens)]), positions, self._attend(n, t, counts, density))[0]
        self.tokens += map(int, tokens)
        self.density = density
        seen = (
            sum(len(past) for past in self.recalled) / c.layers + n - self.since
        )  # of the past, by a layer on average
        attended = round(t * seen + t * (t + 1) / 2)
        self.spent += Cost(calls=1, prompt=t, evaluations=t, attended=attended, flops=self.engine.flops(t, attended, 0))
        return hidden

    def _attend(self, n: int, t: int, counts: Sequence[int] | None, density: Tensor) -> Attend:
        cos, sin = self.rotary(torch.arange(n, n + t)[None])
        causal = torch.ones(t, t, dtype=torch.bool).tril()

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            own = self.store[layer]
            own[:, :, n : n + t] = torch.stack([k[0], v[0], rotate(k, cos, -sin)[0]])
            if counts is not None:
                past, density[layer] = self.recall(layer, rotate(q, cos, -sin)[0], n, counts[layer])
                self.recalled.append(past)
            at = torch.cat([self.recalled[layer], torch.arange(self.since, n + t)])
            keys, values = own[:2].index_select(2, at)[:, None] if len(at) < n + t else own[:2, None, :, : n + t]
            mask = torch.cat([torch.ones(t, len(at) - t, dtype=torch.bool), causal], 1)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)

        return attend

    def recall(self, layer: int, q: Tensor, n: int, count: int) -> tuple[Tensor, float]:
        """Which of n past positions a window with queries q (heads, time, head_dim), not rotated, sees when `count`
        blocks are recalled; and over how many blocks its attention is spread."""
        blocks = self.blocks(n)
        if not blocks:
            return torch.arange(n), 1.0
        stop = self.sinks + blocks * self.block
        scores = self.scores(self.probes(q), self.store[layer, 2, :, self.sinks : stop].unflatten(1, (blocks, -1)))
        share = scores / scores.sum()
        best = scores.topk(count).indices.sort().values
        inside = (self.sinks + best[:, None] * self.block + torch.arange(self.block)).flatten()
        spread = float((-(share * share.clamp_min(1e-30).log()).sum()).exp())
        return torch.cat([torch.arange(self.sinks), inside, torch.arange(stop, n)]), spread

    def probes(self, q: Tensor) -> Tensor:
        """The queries that ask, (heads, anchors, head_dim): the last, and those of the largest activation bias, which
        is how far a token's queries, each of length one, lie from the window's average."""
        each = F.normalize(q, dim=-1)
        bias = (each - each.mean(1, keepdim=True)).square().sum((0, 2))
        bias[-1] = math.inf
        return q[:, bias.topk(min(self.anchors, len(bias))).indices]

    def scores(self, probes: Tensor, keys: Tensor) -> Tensor:
        """(blocks,): the largest share of its attention that any probe, in any head, would give to a block, told by
        the best key of each; keys (kv_heads, blocks, block, head_dim), not rotated."""
        groups = probes.shape[0] // keys.shape[0]
        flat = keys.flatten(1, 2).repeat_interleave(groups, 0)
        agree = (probes @ flat.transpose(1, 2)).unflatten(2, keys.shape[1:3]).amax(-1)
        return (agree / math.sqrt(keys.shape[-1])).softmax(-1).amax((0, 1))

    def blocks(self, n: int) -> int:
        """How many whole blocks lie between the sinks and the latest of n positions."""
        return max(0, (n - self.latest - self.sinks) // self.block)

    def counts(self, budget: float) -> list[int]:
        """How many blocks each layer recalls now: half of the total evenly, half by density."""
        n, layers = len(self.tokens), self.engine.config.layers
        blocks = self.blocks(n)
        always = n - blocks * self.block
        total = int(max(0.0, budget * n - always) * layers / self.block + 1e-9)
        weights = 1 + (self.density / self.density.mean()).numpy()
        return shared(min(total, blocks * layers), weights, blocks).tolist()

    def _make_room(self, size: int) -> None:
        if self.store.shape[3] < size:
            longer = self.store.new_zeros(
                *self.store.shape[:3], max(size, 2 * self.store.shape[3]), self.store.shape[4]
            )
            longer[:, :, :, : self.store.shape[3]] = self.store
            self.store = longer


def shared(total: int, weights: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """`total` whole things split in proportion to `weights`, at most `most` each; largest remainders get what rounding
    leaves. Raises UsageError for more than there is room for."""
    if total > most * len(weights):
        raise UsageError(f"shared({total}, weights, {most}): {len(weights)} places hold {most * len(weights)} at most.")
    part = np.zeros(len(weights))
    while (open_ := part < most).any() and part.sum() < total - 1e-9:  # what overflows goes to those with room
        part = np.minimum(part + (total - part.sum()) * weights * open_ / (weights * open_).sum(), most)
    whole = np.floor(part + 1e-9).astype(np.int64)
    rest = np.argsort(-(part - whole), kind="stable")[: total - whole.sum()]
    whole[rest] += 1
    return whole
