"""How a linear layer's weights are stored: fp32, fp16, bf16, int8 or int4. Activations between layers stay fp32.

Preserves: fp32 exactly; the others' outputs up to the rounding of their weights, which happens once, at load. `fp16`
multiplies fp32 activations with fp32 accumulation (FBGEMM), a row at a time as far as rounding goes: a row's result
is the same to the bit whatever else is in the batch. `bf16`, `int8` and `int4` also round activations to bf16, so a
difference in the last bit of fp32 may grow to one of bf16 downstream.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.fused import Fused, fuse
from anystep.language.engine.int8 import COLUMNS, TURN, Int8Product
from anystep.language.engine.llama import Llama
from anystep.language.engine.outliers import strengths

GROUP = 32  # input features that share an int4 scale: the blocks of GGUF's Q4_0 and Q4_1
FORMS = ("fp32", "fp16", "bf16", "int8", "int4")


class Normed(nn.Module):
    """A product in some form with the norm before it and the bias after, in fp32."""

    bias: Tensor | None

    def __init__(self, layer: nn.Module, norm: nn.RMSNorm | None, bias: Tensor | None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x if self.norm is None else self.norm(x))
        return out if self.bias is None else out.add_(self.bias)


class Single(nn.Module):
    """fp32 weights: what a form leaves alone where it does not fit a shape."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Half(nn.Module):
    """fp16 weights under fp32 activations and accumulation; half the memory traffic of fp32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)


class Bfloat(nn.Module):
    """bf16 weights and activations, fp32 accumulation."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self.weight).float()


class Int4(nn.Module):
    """int4 weights, a scale and a zero for each group of 32 inputs; bf16 activations.

    Minimum and maximum of a group are representable, so weights that were already quantised so (Q4_1) keep their
    levels and lose only what bf16 takes from scale and zero.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        groups = weight.view(outputs, inputs // GROUP, GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = ((high - low) / 15).clamp_min(1e-10)
        levels = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).view(outputs, inputs)
        self.register_buffer("weight", torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1))
        books = torch.stack([scale[..., 0], (low + 8 * scale)[..., 0]], -1)  # (outputs, groups, 2)
        self.register_buffer("books", books.transpose(0, 1).contiguous().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).bfloat16()
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.weight, GROUP, self.books)
        return out.float().view(*x.shape[:-1], -1)


def quantise(model: Llama, form: str, tokens: Sequence[int] | None = None) -> Llama | Fused:
    """The model with its products, a tied head's included, stored as `form`: itself for fp32, else a `Fused` one.

    tokens: text on which int8 finds the columns to keep apart; by default tokens spread over the vocabulary. int4 keeps
    the output head at int8, where half of its error would otherwise come from, and leaves layers whose inputs are not
    a multiple of 32, or whose outputs are not one of 16, in fp32. Raises UsageError for an unknown form.
    """
    if form not in FORMS:
        raise UsageError(f"weights={form!r} is not a form; use one of {', '.join(FORMS)} or 'auto'.")
    if form == "fp32":
        return model
    c = model.config
    columns: dict[str, Tensor] = {}
    if form in ("int8", "int4"):
        sample = list(tokens) if tokens is not None else list(range(0, c.vocab, max(c.vocab // 256, 1)))
        columns = {place: outstanding(found) for place, found in strengths(model, sample).items()}

    def product(place: str, weight: Tensor, bias: Tensor | None, norm: nn.RMSNorm | None) -> nn.Module:
        if form == "int8" or (form == "int4" and place == "head"):
            gain, eps = (None, None) if norm is None else (norm.weight, c.norm_eps)
            turned = place.endswith("down") and weight.shape[1] % TURN == 0
            return Int8Product.of(weight, columns[place], gain, eps, bias, turned)
        return Normed(stored(weight, form), norm, bias)

    return fuse(model, product, torch.float32 if form == "bf16" else torch.float16)


def outstanding(strength: Tensor) -> Tensor:
    """The COLUMNS strongest inputs, in order; at most an eighth of them."""
    return strength.topk(min(COLUMNS, len(strength) // 8)).indices.sort().values


def stored(weight: Tensor, form: str) -> nn.Module:
    """A product's weight in this form, or as it is where the form does not fit its shape."""
    if form == "int4" and (weight.shape[1] % GROUP or weight.shape[0] % 16):
        return Single(weight)
    return {"fp16": Half, "bf16": Bfloat, "int4": Int4}[form](weight)


def default_form(parameters: int) -> str:
    """What "auto" means: fp32 for tiny models; int8 from ten million parameters on, where it is fastest at every number
    of rows (benchmarks/decode.py)."""
    return "int8" if parameters > 10_000_000 else "fp32"
