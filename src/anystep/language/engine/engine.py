"""The engine: sequences in, logits out, with what they share computed once and held once. Its use:

plan = engine.plan(sequences)          # what will it cost? plan.prefill, plan.cached
with engine.open(plan) as session:     # prefill what is missing
    logits = session.logits()          # (rows, vocab)
    session.append(tokens)             # one token a row, one pass
    ...                                # at the end each row's own keys go back to the cache
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.cache import Path, PrefixCache
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.llama import Attend, Config
from anystep.language.engine.packed import Packed
from anystep.language.engine.pages import Pool
from anystep.language.engine.plan import Plan, Unit, make_plan, passes
from anystep.language.engine.rows import Counters
from anystep.language.engine.running import Running
from anystep.language.engine.slots import Arrange
from anystep.language.engine.tokenizer import Tokenizer
from anystep.language.engine.trees import Tree
from anystep.ledger import Cost

LIVE_BYTES = 1 << 31


class Model(Protocol):
    """What the engine asks of a model; `Llama` is one."""

    @property
    def config(self) -> Config: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def logits(self, hidden: Tensor) -> Tensor: ...

    __call__: Callable[..., Any]


class Engine:
    """Runs `model` with a prefix cache of at most `cache_bytes` beyond what open sessions pin.

    live_bytes: of keys and values that the rows of one step hold while they go on, pinned in the cache and of their
    own. Rows that do not fit wait until others have done their step, and what the cache has lost of them by then is
    computed again, and charged; one row is let in whatever it needs. A sixteenth of it is held for the next rows.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        cache_bytes: int = 1 << 30,
        name: str = "model",
        generation: Mapping[str, Any] | None = None,
        live_bytes: int = LIVE_BYTES,
    ) -> None:
        for bound, value in {"cache_bytes": cache_bytes, "live_bytes": live_bytes}.items():
            if value <= 0:
                raise UsageError(f"{bound}={value} holds nothing; Engine(..., {bound}=1 << 30) is a gigabyte.")
        self.live_bytes = live_bytes
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.generation = dict(generation or {})  # what `solve` takes where neither the task nor the call says
        self.lock = threading.RLock()  # whoever plans, opens or appends holds it: one thread at a time
        self.cache, self.counters = PrefixCache(cache_bytes), Counters()
        config, device = model.config, next(model.parameters()).device
        self.like = torch.empty(config.layers, 2, config.kv_heads, 0, config.head_dim, device=device)
        self.pages = Pool(self.like, live_bytes // 16)

    @property
    def config(self) -> Config:
        return self.model.config

    @property
    def bytes_per_position(self) -> int:
        """Bytes that the cache holds for one position: keys, values and the last hidden state."""
        config = self.config
        return self.like.element_size() * (config.layers * 2 * config.kv_heads * config.head_dim + config.dim)

    def flops(self, evaluations: int, attended: int, heads: int) -> float:
        """Floating-point operations of `evaluations` positions that look at `attended` keys in all, `heads` of them
        read out as logits. Products only; a multiply and an add count as two; keys behind a window count too."""
        c = self.config
        layer = c.dim * c.head_dim * (2 * c.heads + 2 * c.kv_heads) + 3 * c.dim * c.hidden
        return 2.0 * (
            evaluations * c.layers * layer + 2 * attended * c.layers * c.heads * c.head_dim + heads * c.dim * c.vocab
        )

    def flops_of_part(self, evaluations: int, attended: int, heads: int, layers: int) -> float:
        """`flops` of so many of the layers."""
        return self.flops(evaluations, attended, 0) * layers / self.config.layers + self.flops(0, 0, heads)

    def plan(self, sequences: Sequence[Sequence[int]]) -> Plan:
        """What opening `sequences` would cost, without any pass of the model.

        Raises UsageError for an empty sequence, one longer than the context, or a token outside the vocabulary.
        """
        return make_plan(self.cache, self.checked(sequences))

    def checked(self, sequences: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """`sequences` as tuples; UsageError for one that this model cannot be fed."""
        rows = [tuple(map(int, tokens)) for tokens in sequences]
        for tokens in rows:
            if not tokens:
                raise UsageError("An empty prompt cannot be continued; give the model at least one token.")
            if len(tokens) > self.config.context:
                raise UsageError(f"{len(tokens)} tokens do not fit this model's context of {self.config.context}.")
        for tokens in set(rows):
            if min(tokens) < 0 or max(tokens) >= self.config.vocab:
                raise UsageError(f"Tokens lie in 0..{self.config.vocab - 1}; got {min(tokens)}..{max(tokens)}.")
        return rows

    def feed(self, lengths: Sequence[int]) -> tuple[list[Cost], Cost]:
        """What one more token costs each row, whose `length` it is part of, and once for the batch, logits included."""
        each = [Cost(generated=1, evaluations=1, attended=n, flops=self.flops(1, n, heads=1)) for n in lengths]
        return each, Cost(calls=1)

    def look(
        self, lengths: Sequence[int], trees: Sequence[Tree], heads: bool = True, start: int = 0
    ) -> tuple[list[Cost], Cost]:
        """What `Decoding.look` at a tree costs each row of `lengths` tokens, and once for the batch; with the logits of
        every node where `heads`, and without the layers before `start`. Tokens that are kept count as generated, and
        are not in it."""
        each = []
        for length, tree in zip(lengths, trees, strict=True):
            nodes, attended = len(tree), len(tree) * length + int(tree.depths.sum()) + len(tree)
            flops = self.flops_of_part(nodes, attended, nodes if heads else 0, self.config.layers - start)
            each.append(Cost(evaluations=nodes, attended=attended, flops=flops))
        return each, Cost(calls=int(any(map(len, trees))))

    def price(self, plan: Plan) -> tuple[list[Cost], Cost]:
        """What opening `plan` costs each row, and once for the batch; logits are not in it (`flops(0, 0, heads)`)."""
        each = [
            Cost(prompt=p, cached=c, evaluations=p, attended=a, flops=self.flops(p, a, heads=0))
            for p, c, a in zip(
                plan.prefill.tolist(), (plan.cached + plan.shared).tolist(), plan.attended.tolist(), strict=True
            )
        ]
        return each, Cost(calls=plan.passes)

    @torch.inference_mode()
    def open(self, plan: Plan) -> Decoding:
        """Computes what `plan` says is missing and returns the rows ready to be continued.

        Raises UsageError for a plan made before something it counts on was evicted: its price no longer holds.
        """
        if plan.version != self.cache.version:
            raise UsageError("This plan is out of date; call engine.open(engine.plan(sequences)).")
        held = [self.cache.match(tokens) for tokens in plan.sequences]
        for path in held:
            self.cache.pin(path)
        try:
            for depth in plan.units:
                for batch in passes(depth):
                    held += self._prefill(batch)
            paths = [self.cache.match(tokens) for tokens in plan.sequences]
            for path in paths:
                self.cache.pin(path)
        finally:
            for path in held:
                self.cache.unpin(path)
        self.cache.trim()
        self.counters.served += int((plan.cached + plan.shared).sum())
        return Decoding(self, plan, paths)

    def _prefill(self, units: list[Unit]) -> list[Path]:
        """One pass over `units`, packed without padding; their paths, cached and pinned."""
        packed = Packed(self, units)
        return packed.keep(self.run(packed.tokens, packed.positions, packed.attend())[0])

    def gather(self, arrange: Arrange | None = None) -> Running:
        """A session without rows, which join and leave it as they like; see `Running`."""
        return Running(self, arrange)

    @torch.inference_mode()
    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None, hidden: bool = False
    ) -> Tensor:
        """Logits (batch, time, vocab) at every position of tokens (batch, time), past the cache.

        `mask` (batch, time, time) is True where a position may look, as far as its layer's window goes back; without it
        attention is causal. With a tree in `mask`, `positions` (batch, time) should be depths. `hidden=True` gives
        hidden states (batch, time, dim).
        """
        attend = None
        if mask is not None:
            if mask.shape != (*tokens.shape, tokens.shape[1]) or mask.dtype != torch.bool:
                raise UsageError(f"forward(tokens {tuple(tokens.shape)}, mask) needs a bool mask (batch, time, time).")
            at = torch.arange(tokens.shape[1]).expand_as(tokens) if positions is None else positions
            back, window = at[:, :, None] - at[:, None, :], self.config.window
            allowed = {size: (mask if size is None else mask & (back < size))[:, None] for size in self.config.sizes}

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                seen = allowed[window(layer)]
                return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])

        states = self.run(tokens, positions, attend)
        return states if hidden else self.model.logits(states)

    def run(
        self, tokens: Tensor, positions: Tensor | None, attend: Attend | None = None, inputs: Tensor | None = None
    ) -> Tensor:
        """One pass of the model, hidden states (batch, time, dim) after the final norm: the only place that calls it,
        so that counts are true. `attend` and `inputs` as in `Llama.forward`."""
        self.counters.passes += 1
        self.counters.positions += tokens.numel()
        device = self.like.device
        positions = None if positions is None else positions.to(device)
        extra: dict[str, object] = {} if attend is None else {"attend": attend}
        extra |= {} if inputs is None else {"inputs": inputs}
        return self.model(tokens.to(device), positions, **extra)

    def part(self, x: Tensor, positions: Tensor, attend: Attend, start: int, stop: int | None) -> Tensor:
        """One pass of layers start..stop-1 alone, over what came out of the layer before, (batch, time, dim), or over
        tokens (batch, time) where start is 0; after the last layer with the final norm. It counts as a pass, and its
        positions as fed where it goes to the end."""
        self.counters.passes += 1
        self.counters.positions += x.shape[0] * x.shape[1] if stop is None else 0
        model: Any = self.model  # not every model can be run in parts
        x = x.to(self.like.device)
        x = model.blocks(x if start else model.embed(x), positions.to(x.device), attend, start, stop)
        return model.norm(x) if stop is None else x
