"""int8 products: both sides in eight bits, but for the few columns that eight bits would ruin.

Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale" (2022): one scale a row of inputs
and one a row of weights, an exact integer product, and outlier features multiplied apart in floating point. Two things
differ. The outlier columns are chosen once, from a sample of text, so that what a row gives does not hang on what else
is in the batch. And where a layer's inputs have outliers that move from token to token (the gated product before
`down`), they are turned by Hadamard blocks of 32, the weights with them, which spreads an outlier over its block
(Ashkboos et al., "QuaRot", 2024).

Preserves: the layer's outputs up to the rounding of both sides. The norm before a product is one factor a row and one a
column, so it costs no pass of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

HELD = ("weight", "scale", "gain", "columns", "kept", "turn", "bias")
COLUMNS = 32  # inputs of a layer that stay in fp32
TURN = 32  # inputs that a Hadamard block mixes


class Int8Product(nn.Module):
    """x (rows, inputs) -> (rows, outputs) under int8 weights, with the RMS norm before it when it has one."""

    weight: Tensor
    scale: Tensor
    gain: Tensor | None
    columns: Tensor
    kept: Tensor
    turn: Tensor | None
    bias: Tensor | None

    def __init__(self, held: Mapping[str, Tensor | None], eps: float | None) -> None:
        """`held` has the seven tensors by name, as `state` gives them."""
        super().__init__()
        self.eps = eps
        for name in HELD:
            self.register_buffer(name, held.get(name))

    @classmethod
    def of(
        cls,
        weight: Tensor,
        columns: Tensor,
        gain: Tensor | None = None,
        eps: float | None = None,
        bias: Tensor | None = None,
        turned: bool = False,
    ) -> Int8Product:
        """weight: (outputs, inputs) in fp32. gain and eps: of the norm before. columns: inputs that are multiplied in
        floating point. turned: whether the rest goes through Hadamard blocks; inputs are then a multiple of TURN."""
        whole = torch.ones(weight.shape[1]) if gain is None else gain.detach().clone()
        kept = (weight[:, columns] * whole[columns]).t().contiguous().half().float()
        whole[columns] = 0
        rest = weight.clone()
        rest[:, columns] = 0
        turn = hadamard(TURN) if turned else None
        if turn is not None:
            rest = (rest.view(-1, TURN) @ turn).view_as(rest)
        scale = rest.abs().amax(1).clamp_min(1e-12) / 127
        levels = (rest / scale[:, None]).round().to(torch.int8)
        some = whole if gain is not None or len(columns) else None
        tensors = (levels, scale / 127, some, columns, kept, turn, bias)
        return cls(dict(zip(HELD, tensors, strict=True)), eps)

    def state(self) -> dict[str, Tensor]:
        """What it is made of; rounded to fp16 already, `kept` is given as that."""
        held = {name: tensor for name, tensor in self.named_buffers()}
        return held | {"kept": held["kept"].half()}

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.gain is None else x * self.gain
        if self.turn is not None:
            y = (y.view(-1, TURN) @ self.turn).view(y.shape)
        top = y.abs().amax(1, keepdim=True).clamp_min_(1e-20)
        levels = (y * (127 / top)).round_().to(torch.int8)
        out = torch._int_mm(levels, self.weight.t()) * self.scale
        factor = None if self.eps is None else inverse_rms(x, self.eps)
        out *= top if factor is None else top * factor
        if len(self.columns):
            kept = x.index_select(1, self.columns)
            out.addmm_(kept if factor is None else kept.mul_(factor), self.kept)
        return out if self.bias is None else out.add_(self.bias)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """(rows, 1): what an RMS norm multiplies each row by."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True).square_().mul_(1 / x.shape[1]).add_(eps).rsqrt_()


def hadamard(size: int) -> Tensor:
    """(size, size), a power of two: symmetric, and its own inverse."""
    block = torch.ones(1, 1)
    while len(block) < size:
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
    return block / size**0.5
