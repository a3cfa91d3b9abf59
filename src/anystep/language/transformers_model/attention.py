"""The attention function that is registered with transformers, and the pass of a model that it answers to."""

from __future__ import annotations

import functools
import math
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import ModelError
from anystep.language.engine.llama import Attend

NAME = "anystep"  # of the attention function that is registered with transformers
UNDONE = {"softcap": "a soft cap on attention scores", "s_aux": "attention sinks", "position_bias": "position biases"}


@dataclass(frozen=True)
class Layer:
    """What one call of the attention function shows of its layer."""

    heads: int
    kv_heads: int
    width: int
    window: int | None


@dataclass
class Pass:
    """One pass of a model: its attention calls come layer by layer, and `attend` answers them in fp32.

    Heads are padded with zeros to `width`, so that layers, or keys and values, of different widths fit one cache.
    """

    attend: Attend
    width: int = 0
    layers: list[Layer] = field(default_factory=list)

    def answer(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
        """(batch, time, heads, d) for query, key and value (batch, heads, time, d)."""
        width = max(query.shape[-1], value.shape[-1], self.width)
        self.layers.append(Layer(query.shape[1], key.shape[1], width, window))
        scale = (query.shape[-1] ** -0.5 if scaling is None else scaling) * math.sqrt(width)  # `attend` divides by it
        q, k, v = (F.pad(x.float(), (0, width - x.shape[-1])) for x in (query, key, value))
        out = self.attend(len(self.layers) - 1, q * scale, k, v)[..., : value.shape[-1]]
        return out.transpose(1, 2).to(query.dtype).contiguous()


RUN: ContextVar[Pass] = ContextVar("anystep pass")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; whom it answers to is the pass that is under way."""
    for word, what in UNDONE.items():
        if named.get(word) is not None:
            raise ModelError(f"{type(module).__name__} has {what}, which this engine does not do.")
    return RUN.get().answer(query, key, value, scaling, sliding_window), None


@functools.cache
def register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
