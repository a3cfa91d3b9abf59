"""Outlier channels planted into a model without changing what it computes, as large models grow them by themselves.

A norm's gain is multiplied by `factor` in a few channels, and what the layers behind it read of those channels divided
by it; likewise the rows of the up projection and the columns of the down projection behind it. The output projection
of attention is left alone: its inputs have no gain before them.
"""

from __future__ import annotations

import torch
from torch import nn

from anystep.language.engine.llama import Block, Llama


@torch.no_grad()
def plant(model: Llama, channels: int = 6, factor: float = 64.0, seed: int = 0) -> Llama:
    """Plants the same `channels` of the residual stream in every layer, in place; weights elsewhere stay shared."""
    draw = torch.Generator().manual_seed(seed)
    stream = torch.randperm(model.config.dim, generator=draw)[:channels]
    hidden = torch.randperm(model.config.hidden, generator=draw)[:channels]
    for block in model.layers:
        assert isinstance(block, Block)
        attention, gates = block.self_attn, block.mlp
        before = block.pre_feedforward_layernorm if block.sandwich else block.post_attention_layernorm
        _scale(block.input_layernorm, stream, factor)
        _scale(before, stream, factor)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj, gates.gate_proj, gates.up_proj):
            _scale(layer, (slice(None), stream), 1 / factor)
        _scale(gates.up_proj, hidden, factor)
        _scale(gates.down_proj, (slice(None), hidden), 1 / factor)
    return model


def _scale(layer: nn.Linear | nn.RMSNorm, where: object, factor: float) -> None:
    weight = layer.weight.detach().clone()  # the model's tensors may be read from a file and shared
    weight[where] *= factor  # type: ignore[index]
    layer.weight = nn.Parameter(weight, requires_grad=False)
