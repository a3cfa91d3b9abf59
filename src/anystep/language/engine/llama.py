"""The Llama architecture and its relatives, once: training calls it with causal attention, the engine with a cache.

The only thing that differs between the two is what a query may look at, so that is the argument: `attend(layer,
q, k, v)` receives this pass's rotated queries and keys and returns the attended values. Source: Touvron et al.,
"LLaMA: Open and Efficient Foundation Language Models" (2023), with grouped queries from Ainslie et al. (2023).

The relatives are the same blocks under other settings of `Config`: Mistral looks back a window (Jiang et al., 2023),
Qwen 2 has biases and Qwen 3 norms on queries and keys (Yang et al., 2024, 2025), and Gemma 3 has those norms, norms
around each half of a block, GELU gates, and windows in five layers of six (Gemma Team, 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """Shape of a model: `vocab` tokens, `dim` wide, `layers` deep, `heads` queries on `kv_heads` keys of `head_dim`.

    The fields after `tied` tell its relatives from Llama. rope_factors: each rotary frequency is divided by its factor
    (head_dim / 2 of them, or none). windows: for each layer how many positions a query sees, itself the last, or None
    for all; empty when no layer has a window. near_theta: the rotary base of layers with a window where it is another;
    their frequencies are not divided. query_scale: queries are multiplied by it, before the division by the root
    of head_dim. sandwich: a norm before and after each half of a block.
    """

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    head_dim: int
    context: int = 2048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_factors: tuple[float, ...] = ()
    windows: tuple[int | None, ...] = ()
    near_theta: float | None = None
    query_scale: float = 1.0
    embed_scale: float = 1.0
    gate: Literal["silu", "gelu"] = "silu"
    sandwich: bool = False

    def __post_init__(self) -> None:
        for name in ("rope_factors", "windows"):  # a checkpoint's card has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if any(window is not None and window < 1 for window in self.windows):
            raise ValueError(f"a window is at least one position long, not {self.windows}")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} keys evenly")

    def window(self, layer: int) -> int | None:
        """How many positions a query of `layer` sees, itself the last; None for all there are."""
        return self.windows[layer] if self.windows else None

    @property
    def sizes(self) -> frozenset[int | None]:
        """The different windows of its layers."""
        return frozenset(self.windows) or frozenset([None])


def causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain causal attention over this pass's own tokens; q is (batch, heads, time, head_dim)."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def within(windows: Sequence[int | None]) -> Attend:
    """`causal` in which layer i sees `windows[i]` positions back, itself included, or all where that is None."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        time, window = q.shape[2], windows[layer]
        if window is None or time <= window:
            return causal(layer, q, k, v)
        seen = torch.ones(time, time, dtype=torch.bool, device=q.device).tril().triu(1 - window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])

    return attend


class Rotary(nn.Module):
    """Rotary position embedding in the half-split layout of Hugging Face checkpoints."""

    inverse: Tensor

    def __init__(self, head_dim: int, theta: float, factors: Sequence[float] = ()) -> None:
        super().__init__()
        # on the CPU even where a model is only laid out: numbers on the meta device would load the compiler
        half = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        inverse = theta**-half / torch.tensor(factors, device="cpu") if factors else theta**-half
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (batch, time) to cosines and sines (batch, 1, time, head_dim)."""
        angle = positions[:, None, :, None].float() * self.inverse
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


class Attention(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.query_scale = layer, config.head_dim, config.query_scale
        self.q_proj = nn.Linear(config.dim, config.heads * config.head_dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.dim, config.kv_heads * config.head_dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.dim, config.kv_heads * config.head_dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = (
            p(x).view(batch, time, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.query_scale != 1:
            q = q * self.query_scale
        out = attend(self.layer, rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))


class FeedForward(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.dim, bias=False)
        self.silu = config.gate == "silu"

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        return self.down_proj((F.silu(gate) if self.silu else F.gelu(gate, approximate="tanh")) * self.up_proj(x))


class Block(nn.Module):
    """Attention, then gates, each added to what came in; norms have the names, and so the places, of checkpoints."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config, layer), FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.sandwich = config.sandwich
        if config.sandwich:
            self.pre_feedforward_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
            self.post_feedforward_layernorm = nn.RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        if self.sandwich:
            x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), cos, sin, attend))
            return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Embedding(nn.Embedding):
    """An embedding that is not drawn when it is only laid out: drawing on the meta device would load the compiler."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Llama(nn.Module):
    """Tokens to hidden states and logits; parameter names are those of Hugging Face checkpoints without `model.`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.lay_rotary()
        self.attend = within(config.windows) if config.windows else causal
        self.lm_head = None if config.tied else nn.Linear(config.dim, config.vocab, bias=False)

    def lay_rotary(self, device: str | None = None) -> None:
        """Makes the rotary tables: they follow from the shape and are in no file."""
        c = self.config
        self.rotary = Rotary(c.head_dim, c.rope_theta, c.rope_factors).to(device)
        self.rotary_near = None if c.near_theta is None else Rotary(c.head_dim, c.near_theta).to(device)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        attend: Attend | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (batch, time, dim) of tokens (batch, time), after the final norm.

        Without `attend` these tokens see each other causally, within each layer's window. `inputs` (batch, time, dim)
        are read in place of the tokens' own embeddings.
        """
        return self.norm(self.blocks(self.embed(tokens) if inputs is None else inputs, positions, attend))

    def embed(self, tokens: Tensor) -> Tensor:
        """What the first layer reads of `tokens`: (..., dim)."""
        x = self.embed_tokens(tokens)
        return x if self.config.embed_scale == 1 else x * self.config.embed_scale

    def blocks(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        attend: Attend | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """x (batch, time, dim) after layers start..stop-1, by default all of them; no final norm."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        far = self.rotary(positions)
        near = far if self.rotary_near is None else self.rotary_near(positions)
        for layer in range(start, self.config.layers if stop is None else stop):
            cos, sin = far if self.config.window(layer) is None else near
            x = self.layers[layer](x, cos, sin, attend or self.attend)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., vocab) of hidden states (..., dim)."""
        return F.linear(hidden, self.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)
