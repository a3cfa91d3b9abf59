"""Which torch operators did a model really run? Multiplications, weight bytes and key bytes, seen as they happen.

Imported by name only: the rest of `anystep.testing` needs no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "int8"}
LOOKUPS = ("aten::embedding", "aten::index_select", "aten::index")  # read a few rows of a table: not counted


@dataclass
class Operators:
    """What was seen. `operations` are those of products, a multiply and an add counted as two, by the arithmetic they
    are done in (fp32, bf16, int8). `read_bytes` are the watched weights that products and the like went through, once
    for each time; `key_bytes` the keys and values that attention went through."""

    names: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0
    key_bytes: int = 0

    @property
    def calls(self) -> int:
        """Operators and other calls that were made, views apart."""
        return self.names.total()

    def add(self, name: str, operations: Mapping[str, int], read: int = 0, keys: int = 0) -> None:
        """A call that torch did not see: operations of its products by arithmetic, bytes of weights, and of keys."""
        self.names[name] += 1
        self.operations.update(operations)
        self.read_bytes += read
        self.key_bytes += keys


@contextmanager
def counted_operators(weights: Mapping[int, int] | None = None) -> Iterator[Operators]:
    """Count torch's operators while the context is open, on this thread.

    weights: bytes by storage (`address`), whose reading is to be counted. Compiled code that torch does not see is told
    to the `Operators` by `add`.
    """
    found = Operators()
    with _Watch(found, weights or {}):
        yield found


def address(value: Any) -> int:
    """What tells a tensor's storage, or an object of torch's own with packed weights inside, from others."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return value.untyped_storage().data_ptr()
    return id(value) if isinstance(value, Tensor) else hash(value)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: Operators, weights: Mapping[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found, self.weights = found, weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if func.is_view or name == "aten::detach":
            return out
        self.found.names[name] += 1
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, (Tensor, torch.ScriptObject))]
        if name not in LOOKUPS:
            self.found.read_bytes += sum(self.weights.get(at, 0) for at in {address(v) for v in given})
        if (product := PRODUCTS.get(name)) is not None:
            kind, operations = product(args, out)
            self.found.operations[kind] += operations
        if name in ATTENTION:
            self.found.key_bytes += args[1].nbytes + args[2].nbytes
        return out


def _at(place: int, kind: str | None = None) -> Callable[[Any, Any], tuple[str, int]]:
    """A product of argument `place` (..., k) with something that makes (..., n) of it."""

    def count(args: Any, out: Tensor) -> tuple[str, int]:
        return kind or KINDS[args[place].dtype], 2 * args[place].numel() * out.shape[-1]

    return count


def _attention(args: Any, out: Any) -> tuple[str, int]:
    """Queries (batch, heads, time, d) times keys, and weights times values; half of the square where it is causal."""
    q, k = args[0], args[1]
    time, keys = q.shape[-2], k.shape[-2]
    causal = len(args) > 4 and args[4]
    pairs = sum(min(keys, i + 1) for i in range(time)) if causal else time * keys
    return KINDS[q.dtype], 4 * pairs * q.numel() // time


ATTENTION = ("aten::_scaled_dot_product_flash_attention_for_cpu",)
PRODUCTS: dict[str, Callable[[Any, Any], tuple[str, int]]] = {
    "aten::mm": _at(0),
    "aten::addmm": _at(1),
    "aten::bmm": _at(0),
    "aten::linear": _at(0),
    "aten::mkldnn_linear": _at(0),
    "aten::_int_mm": _at(0),
    "aten::_weight_int8pack_mm": _at(0),
    "aten::_weight_int4pack_mm_for_cpu": _at(0),
    "quantized::linear_dynamic_fp16": _at(0),
    **dict.fromkeys(ATTENTION, _attention),
}
