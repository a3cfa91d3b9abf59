"""What is in memory: a model's weights by their real storages, and what the operating system says of the process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anystep.testing.operators import address

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held(model: Any) -> dict[int, int]:
    """Bytes of every storage that `model` holds, each once: parameters, buffers, plain tensors and packed weights."""
    modules = model.modules() if isinstance(model, nn.Module) else [model]
    found: dict[int, int] = {}
    for module in modules:
        for value in _weights(vars(module)):
            found[address(value)] = _bytes(value)
    return found


def _weights(value: Any) -> Iterator[Any]:
    """Tensors and packed weights in `value`, however they are kept, submodules apart."""
    if isinstance(value, (Tensor, torch.ScriptObject)):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _weights(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _weights(inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _weights(vars(value) if hasattr(value, "__dict__") else dataclasses.astuple(value))


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        strided = value.layout == torch.strided
        return value.untyped_storage().nbytes() if strided else value.numel() * value.element_size()
    weight, _ = torch.ops.quantized.linear_unpack_fp16(value)  # the one kind of packed object that models here hold
    return weight.numel() * 2


def resident() -> dict[str, int]:
    """Bytes of this process in memory: `now`, `own` (not backed by a file), and `peak` since the start or since
    `forget_peak`. Empty where the system does not say."""
    if not STATUS.exists():
        return {}
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    names = {"now": "VmRSS", "own": "RssAnon", "peak": "VmHWM"}
    return {name: int(lines[field].split()[0]) * 1024 for name, field in names.items() if field in lines}


def forget_peak() -> bool:
    """Begin the peak anew at what is resident now; False where the system does not let."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True
