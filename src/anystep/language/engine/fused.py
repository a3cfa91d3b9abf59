"""`Llama` with fewer, larger operations and its products in any form: the same function, made for speed.

One matrix for queries, keys and values and one for gates and their partners; positions of all rows in one flat axis;
rotation as two products and a roll. `llama.py` is the readable reference, and tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Attend, Block, Config, Llama, Rotary, causal, within

Products = Callable[[str, Tensor, Tensor | None, nn.RMSNorm | None], nn.Module]
"""(name, weight (outputs, inputs), bias, norm) -> what maps (rows, inputs) to (rows, outputs), the norm before it
included; `name` is the place, such as "layers.3.down"."""


class Fused(nn.Module):
    """The face of `Llama`: tokens to hidden states and logits. Made by `fuse`."""

    embed_tokens: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    rotary: Rotary
    rotary_near: Rotary | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.attend = within(config.windows) if config.windows else causal

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What `to`, `half` and their like do. Raises UsageError once layers are compiled, before a part is changed."""
        if any(getattr(module, "placed", False) for module in self.modules()):
            raise UsageError("Compiled layers cannot be moved or cast; load(name, device=...) puts a model elsewhere.")
        return super()._apply(fn, recurse)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        attend: Attend | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """As `Llama.forward`."""
        return self.norm(self.blocks(self.embed(tokens) if inputs is None else inputs, positions, attend))

    def embed(self, tokens: Tensor) -> Tensor:
        """As `Llama.embed`."""
        table: Tensor = self.embed_tokens.weight  # type: ignore[assignment]
        x = F.embedding(tokens, table).float()
        return x if self.config.embed_scale == 1 else x * self.config.embed_scale

    def blocks(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        attend: Attend | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """As `Llama.blocks`."""
        batch, time, dim = x.shape
        if positions is None:
            positions = torch.arange(time, device=x.device).expand(batch, time)
        far = turn(self.rotary, positions)
        near = far if self.rotary_near is None else turn(self.rotary_near, positions)
        x = x.reshape(-1, dim)
        for layer in range(start, self.config.layers if stop is None else stop):
            cos, sin = far if self.config.window(layer) is None else near
            x = self.layers[layer](x, (batch, time), cos, sin, attend or self.attend)
        return x.view(batch, time, dim)

    def logits(self, hidden: Tensor) -> Tensor:
        """As `Llama.logits`."""
        return self.head(hidden.reshape(-1, hidden.shape[-1])).view(*hidden.shape[:-1], -1)


class FusedBlock(nn.Module):
    """One layer over rows x (rows, dim), which are `shape` (batch, time) sequences."""

    qkv: nn.Module
    o: nn.Module
    gate_up: nn.Module
    down: nn.Module
    gain: Tensor | None  # (kinds, width) of queries and keys, where a model has one

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kinds = layer, config.heads, config.heads + config.kv_heads
        self.width, self.hidden, self.eps = config.head_dim, config.hidden, config.norm_eps
        self.silu, self.normed = config.gate == "silu", config.qk_norm
        self.after_attention: nn.Module | None = None  # norms of what each half adds, where a model has them
        self.after_gates: nn.Module | None = None

    def forward(self, x: Tensor, shape: tuple[int, int], cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        qkv = self.qkv(x)
        edge = self.kinds * self.width
        qk = qkv[:, :edge].view(-1, self.kinds, self.width)
        if self.normed:
            qk = F.rms_norm(qk, (self.width,), eps=self.eps)
        if self.gain is not None:
            qk = qk * self.gain
        qk = torch.addcmul(qk * cos, qk.roll(self.width // 2, -1), sin)
        q = qk[:, : self.heads].view(*shape, self.heads, self.width).transpose(1, 2)
        k = qk[:, self.heads :].view(*shape, -1, self.width).transpose(1, 2)
        v = qkv[:, edge:].view(*shape, -1, self.width).transpose(1, 2)
        seen = attend(self.layer, q, k, v).transpose(1, 2).reshape(len(x), -1)
        x = added(self.o(seen), self.after_attention, x)
        both = self.gate_up(x)
        gate, up = both[:, : self.hidden], both[:, self.hidden :]
        gate = F.silu(gate) if self.silu else F.gelu(gate, approximate="tanh")
        return added(self.down(gate.mul_(up)), self.after_gates, x)


def added(out: Tensor, norm: nn.Module | None, x: Tensor) -> Tensor:
    return (out if norm is None else norm(out)).add_(x)


def turn(rotary: Rotary, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (batch, time) to cosines and signed sines (rows, 1, head_dim): x * cos + roll(x) * sin is rotated x."""
    cos, sin = (t.view(-1, 1, t.shape[-1]) for t in rotary(positions))
    half = sin.shape[-1] // 2
    return cos, torch.cat([-sin[..., :half], sin[..., half:]], -1)


def fuse(model: Llama, products: Products, embedding: torch.dtype = torch.float32) -> Fused:
    """`model` with products made by `products`, and its embeddings kept as `embedding`. Shares what is unchanged."""
    fused = Fused(model.config)
    fused.embed_tokens = nn.Module()
    table = model.embed_tokens.weight.detach().to(embedding)
    fused.embed_tokens.weight = nn.Parameter(table, requires_grad=False)
    fused.rotary, fused.rotary_near, fused.norm = model.rotary, model.rotary_near, model.norm
    blocks = (fused_block(model.config, i, block, products) for i, block in enumerate(model.layers))  # type: ignore[arg-type]
    fused.layers = nn.ModuleList(blocks)
    head = model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
    fused.head = products("head", head.detach(), None, None)
    return fused.requires_grad_(False).eval()


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """One above the other; of tensors without numbers only the shape, as joining those would load torch's compiler."""
    if parts[0].is_meta:
        return parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    return torch.cat(list(parts)).detach()


def fused_block(config: Config, layer: int, block: Block, products: Products) -> FusedBlock:
    new, mine, gates, place = FusedBlock(config, layer), block.self_attn, block.mlp, f"layers.{layer}"
    parts = (mine.q_proj, mine.k_proj, mine.v_proj)
    bias = stacked([p.bias for p in parts]) if config.qkv_bias else None
    weight = stacked([p.weight for p in parts])
    new.qkv = products(f"{place}.qkv", weight, bias, block.input_layernorm)
    new.o = products(f"{place}.o", mine.o_proj.weight.detach(), None, None)
    before = block.pre_feedforward_layernorm if config.sandwich else block.post_attention_layernorm
    both = stacked([gates.gate_proj.weight, gates.up_proj.weight])
    new.gate_up = products(f"{place}.gate_up", both, None, before)
    new.down = products(f"{place}.down", gates.down_proj.weight.detach(), None, None)
    if config.sandwich:
        new.after_attention, new.after_gates = block.post_attention_layernorm, block.post_feedforward_layernorm
    gain = torch.ones(new.kinds, config.head_dim)
    if mine.q_norm is not None and mine.k_norm is not None:
        gain[: config.heads], gain[config.heads :] = mine.q_norm.weight.detach(), mine.k_norm.weight.detach()
    gain[: config.heads] *= config.query_scale
    new.register_buffer("gain", gain if config.qk_norm or config.query_scale != 1 else None)
    return new
