"""What one query of each row sees of the row's own keys, through the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from anystep.language.engine.attention import Part
from anystep.language.engine.native import library
from anystep.language.engine.native.layers import Number, at, kernels
from anystep.language.engine.native.watch import tell, watchers

LANES = 16


def attends(buffer: Tensor) -> bool:
    """Whether the kernels can attend over keys in this `buffer`."""
    return (
        buffer.device.type == "cpu"
        and buffer.dtype == torch.float32
        and buffer.shape[-1] % LANES == 0
        and library() is not None
    )


def attend_own(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, own: Tensor, window: int | None, other: Part | None
) -> Part:
    """Puts each row's new key and value behind its own, and attends over those; merged with `other` where it is given.

    q, k and v: (rows, heads or kinds, 1, width). keys: (2, slots, kinds, size, width), of which the first rows are
    written. own: (rows,) how many keys each row had.
    """
    rows, heads, _, width = q.shape
    kinds = k.shape[1]
    if not all(x.stride(0) == q.stride(0) and x.stride(1) == width and x.stride(3) == 1 for x in (q, k, v)):
        q, k, v = torch.cat([q, k, v], 1).split([heads, kinds, kinds], 1)
    out, norm = q.new_empty(rows, heads, 1, width), q.new_empty(rows, heads, 1)
    seen = (None, None) if other is None else (other[0].contiguous(), other[1].contiguous())
    if watchers:
        pairs = int((own + 1 if window is None else (own + 1).clamp(max=window)).sum())
        tell("attend_own", {"fp32": 4 * heads * width * pairs}, keys=2 * kinds * width * keys.element_size() * pairs)
    sizes = (Number(x) for x in (keys.stride(1), keys.stride(2)))
    shape = (Number(x) for x in (window or 0, rows, heads, kinds, width))
    kernels().attend_own(
        *map(at, (q, k, v)),
        Number(q.stride(0)),
        *map(at, keys),
        *sizes,
        at(own),
        *shape,
        *(None if x is None else at(x) for x in seen),
        at(out),
        at(norm),
        torch.get_num_threads(),
    )
    return out, norm
