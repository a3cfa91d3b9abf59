"""How a linear layer's weights are stored: fp32, fp16, bf16, int8 or int4. Activations between layers stay fp32.

Preserves: fp32 exactly; the others' outputs up to the rounding of their weights, which happens once, at load. `fp16`
multiplies fp32 activations with fp32 accumulation (FBGEMM), a row at a time as far as rounding goes: a row's result
is the same to the bit whatever else is in the batch. `bf16`, `int8` and `int4` also round activations to bf16, so a
difference in the last bit of fp32 may grow to one of bf16 downstream.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Llama

GROUP = 32  # input features that share an int4 scale: the blocks of GGUF's Q4_0 and Q4_1
FORMS = ("fp32", "fp16", "bf16", "int8", "int4")


class Biased(nn.Module):
    """A layer in some form, and its bias in fp32."""

    bias: Tensor

    def __init__(self, layer: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.bias


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


class Int8(nn.Module):
    """int8 weights, one symmetric scale an output; bf16 activations."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).bfloat16()
        out = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)
        return out.float().view(*x.shape[:-1], -1)


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


def quantise(model: Llama, form: str) -> Llama:
    """Replaces the linear layers of `model` (also a tied head's product) in place by their `form`, and returns it.

    int4 keeps the output head at int8, where half of its error would otherwise come from. Layers whose inputs
    are not a multiple of 32, or whose outputs are not one of 16, stay fp32 under int4.
    """
    if form not in FORMS:
        raise UsageError(f"weights={form!r} is not a form; use one of {', '.join(FORMS)} or 'auto'.")
    if form == "fp32":
        return model
    head: Tensor = model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
    for block in model.layers.modules():
        for name, layer in list(block.named_children()):
            if isinstance(layer, nn.Linear):
                form_of = stored(layer, layer.weight, form)
                if form_of is not layer and layer.bias is not None:
                    form_of = Biased(form_of, layer.bias.detach())
                setattr(block, name, form_of)
    model.lm_head = stored(model.lm_head, head, "int8" if form == "int4" else form)
    return model


def stored(layer: Any, weight: Tensor, form: str) -> Any:
    """`layer` in this form, or as it is where the form does not fit its shape."""
    if form == "int4" and (weight.shape[1] % GROUP or weight.shape[0] % 16):
        return layer
    return {"fp16": Half, "bf16": Bfloat, "int8": Int8, "int4": Int4}[form](weight.detach())


def default_form(parameters: int) -> str:
    """What "auto" means: fp32 for tiny models; fp16 from ten million parameters on, where memory sets the pace.

    Measured on SmolLM2-135M (benchmarks/decode.py): fp16 is faster than fp32 up to 64 rows and as accurate as its
    rounding; builds of torch without FBGEMM fall back to fp32.
    """
    return "fp16" if parameters > 10_000_000 and "fbgemm" in torch.backends.quantized.supported_engines else "fp32"
