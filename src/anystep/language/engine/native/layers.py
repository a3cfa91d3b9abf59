"""A fused model's layers through the compiled kernels: two calls a layer around its attention, one for the head."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from anystep.language.engine.fused import Fused, FusedBlock
from anystep.language.engine.int8 import TURN, Int8Product
from anystep.language.engine.llama import Attend
from anystep.language.engine.native import library
from anystep.language.engine.native.watch import tell, watchers

BLOCK = 32  # outputs that lie side by side, as in products.h
LANES = 16

Number, Real, At = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class ProductFields(ctypes.Structure):
    """`Product` of products.h."""

    _fields_ = [
        *((name, Number) for name in ("inputs", "outputs", "columns", "turned", "normed")),
        ("eps", Real),
        *((name, At) for name in ("weight", "scale", "gain", "outliers", "kept", "bias")),
    ]


class BlockFields(ctypes.Structure):
    """`Block` of products.h."""

    _fields_ = [
        *((name, ProductFields) for name in ("qkv", "o", "gate_up", "down")),
        *((name, Number) for name in ("heads", "kinds", "width", "hidden", "dim", "silu", "normed")),
        ("eps", Real),
        *((name, At) for name in ("gain", "after_attention", "after_gates")),
    ]


class Placed(nn.Module):
    """What the kernels know by its addresses, so that it stays where it is and as it is: see `Fused._apply`."""

    placed = True


class NativeProduct(Placed):
    """An `Int8Product` laid out for the kernels."""

    weight: Tensor
    kept: Tensor

    def __init__(self, plain: Int8Product) -> None:
        super().__init__()
        outputs, inputs = plain.weight.shape
        blocks = plain.weight.view(outputs // BLOCK, BLOCK, inputs // 4, 4).transpose(1, 2).contiguous()
        self.register_buffer("weight", blocks.view(torch.uint8) ^ 128)
        self.register_buffer("scale", plain.scale)
        self.register_buffer("gain", plain.gain)
        self.register_buffer("columns", plain.columns)
        self.register_buffer("kept", plain.kept.half())
        self.register_buffer("bias", plain.bias)
        self.outputs, self.inputs, held = outputs, inputs, dict(self.named_buffers())
        eps = 0.0 if plain.eps is None else plain.eps
        turned, normed = plain.turn is not None, plain.eps is not None
        numbers = (inputs, outputs, len(plain.columns), turned, normed, eps)
        names = ("weight", "scale", "gain", "columns", "kept", "bias")
        self.fields = ProductFields(*numbers, *(held[name].data_ptr() if name in held else None for name in names))

    @property
    def bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers())

    def work(self, rows: int) -> dict[str, int]:
        """Multiplies and adds of a product of `rows` rows, by their arithmetic."""
        return {"int8": 2 * rows * self.weight.numel(), "fp32": 2 * rows * self.kept.numel()}

    def forward(self, x: Tensor) -> Tensor:
        x = laid(x, self.inputs)
        out = x.new_empty(len(x), self.outputs)
        if watchers:
            tell("product", self.work(len(x)), self.bytes)
        kernels().product(ctypes.byref(self.fields), at(x), Number(len(x)), at(out), torch.get_num_threads())
        return out


class NativeBlock(Placed):
    """A `FusedBlock` of int8 products, with the same call."""

    gain: Tensor | None

    def __init__(self, plain: FusedBlock, dim: int) -> None:
        super().__init__()
        qkv, o, gate_up, down = parts(plain)
        self.layer, self.heads, self.kinds, self.width = plain.layer, plain.heads, plain.kinds, plain.width
        self.qkv, self.o, self.gate_up, self.down = map(NativeProduct, (qkv, o, gate_up, down))
        self.register_buffer("gain", plain.gain)
        for name in ("after_attention", "after_gates"):
            norm = getattr(plain, name)
            self.register_buffer(name, None if norm is None else norm.weight.detach().contiguous())
        held = dict(self.named_buffers(recurse=False))
        products = (p.fields for p in (self.qkv, self.o, self.gate_up, self.down))
        numbers = (plain.heads, plain.kinds, plain.width, plain.hidden, dim, plain.silu, plain.normed, plain.eps)
        norms = (held[n].data_ptr() if n in held else None for n in ("gain", "after_attention", "after_gates"))
        self.fields = BlockFields(*products, *numbers, *norms)

    def forward(self, x: Tensor, shape: tuple[int, int], cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        run, rows, threads = kernels(), Number(len(x)), torch.get_num_threads()
        x, me = laid(x, self.qkv.inputs), ctypes.byref(self.fields)
        qkv = x.new_empty(len(x), self.qkv.outputs)
        if watchers:
            self.tell(len(x))
        run.before_attention(me, at(x), rows, at(cos), at(sin), at(qkv), threads)
        parts = qkv.view(*shape, -1, self.width).transpose(1, 2)
        q, k, v = parts[:, : self.heads], parts[:, self.heads : self.kinds], parts[:, self.kinds :]
        seen = laid(attend(self.layer, q, k, v).transpose(1, 2).reshape(len(x), -1), self.o.inputs)
        out = torch.empty_like(x)
        run.after_attention(me, at(x), at(seen), rows, at(out), threads)
        return out

    def tell(self, rows: int) -> None:
        """Says what the two calls of a pass do."""
        after = (self.o, self.gate_up, self.down)
        tell("before_attention", self.qkv.work(rows), self.qkv.bytes)
        work = [product.work(rows) for product in after]
        norms = sum(buffer.nbytes for buffer in self.buffers(recurse=False))
        total = {kind: sum(each[kind] for each in work) for kind in work[0]}
        tell("after_attention", total, sum(product.bytes for product in after) + norms)


class NativeNorm(nn.Module):
    """An RMS norm, each row by itself."""

    def __init__(self, weight: Any, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        width = len(self.weight)
        x = laid(x, width)
        out = torch.empty_like(x)
        kernels().normed(at(x), at(self.weight), Real(self.eps), Number(x.numel() // width), Number(width), at(out))
        return out


def kernels() -> Any:
    found = library()
    assert found is not None
    return found


def at(tensor: Tensor) -> ctypes.c_void_p:
    return At(tensor.data_ptr())


def laid(x: Tensor, width: int) -> Tensor:
    """(..., width) as the kernels read it, which trust what they are given."""
    if x.shape[-1] != width or x.device.type != "cpu":
        raise ValueError(f"These layers take rows of {width} numbers on the CPU; got {tuple(x.shape)} on {x.device}.")
    return x.float().contiguous()


def parts(block: Any) -> tuple[Any, Any, Any, Any]:
    return block.qkv, block.o, block.gate_up, block.down


def fits(product: Any) -> bool:
    """Whether the kernels can do this product."""
    if not isinstance(product, Int8Product) or product.weight.device.type != "cpu":
        return False
    if any(t is not None and t.dtype != torch.float32 for t in (product.scale, product.gain, product.bias)):
        return False
    outputs, inputs = product.weight.shape
    return outputs % BLOCK == 0 and inputs % TURN == 0


def compiled(fused: Fused) -> Fused:
    """`fused` with its layers and head in place through the kernels, as far as they are there and fit."""
    if library() is None or fused.norm.weight.device.type != "cpu" or fused.norm.weight.dtype != torch.float32:
        return fused
    block: Any
    for i, block in enumerate(fused.layers):
        if all(map(fits, parts(block))) and block.width % 2 == 0 and block.hidden % LANES == 0:
            fused.layers[i] = NativeBlock(block, fused.config.dim)
    fused.norm = NativeNorm(fused.norm.weight, fused.config.norm_eps)
    if isinstance(fused.head, Int8Product) and fits(fused.head):
        fused.head = NativeProduct(fused.head)
    return fused
