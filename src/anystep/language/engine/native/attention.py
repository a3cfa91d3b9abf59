"""Attention by lists of keys: each query of a pass has the keys it sees, in the order of their positions.

Keys that forks share are listed by each and lie once. What a query gets hangs on nothing but that list, to the last
bit: not on whether keys came by a prompt, a step or a tree, on how many forks share them, or on what else is asked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.language.engine.llama import Attend, Config
from anystep.language.engine.native import library
from anystep.language.engine.native.layers import LANES, Number, at, kernels
from anystep.language.engine.native.watch import tell, watchers

Stretch = tuple[Tensor, int, int]  # keys (layers, 2, kinds, length, width); how many of them, from which on
Places = NDArray[np.int64]  # (places, FIELDS), each a `Place` of attention.h
FIELDS = 5


def attends(keys: Tensor) -> bool:
    """Whether the kernels can attend over `keys` like these."""
    fits = keys.device.type == "cpu" and keys.dtype == torch.float32 and keys.shape[-1] % LANES == 0
    return fits and library() is not None


def by_lists(config: Config, seen: Sequence[tuple[Sequence[Stretch], tuple[Tensor, int]]]) -> Attend:
    """The attention of a pass: for each query, in order, the stretches it sees before itself, and where its own key
    goes, (keys, position), which it sees last. Stretches are (keys, first, count)."""
    own = np.array([place(keys, first, 1) for _, (keys, first) in seen], np.int64)
    stretches = [stretch for before, (keys, first) in seen for stretch in (*before, (keys, first, 1))]
    shapes = {tuple(keys.shape[2::2]) for keys, *_ in stretches}
    tables = {size: table([(*before, (*mine, 1)) for before, mine in seen], size) for size in config.sizes}
    inner = over(config, shapes, tables, own)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, alive: object = seen) -> Tensor:
        return inner(layer, q, k, v)

    return attend


def by_places(config: Config, shape: tuple[int, int], seen: Sequence[Places], own: Places) -> Attend:
    """`by_lists` for keys of `shape` (kinds, width) of which only the places are given: for each query all that it
    sees, its own key last, and where that goes. Whoever calls the attention keeps them in their places."""
    starts = np.zeros(len(seen) + 1, np.int64)
    tables = {}
    for size in config.sizes:
        near = seen if size is None else [nearest(places, size, shape[1]) for places in seen]
        np.cumsum([len(places) for places in near], out=starts[1:])
        tables[size] = starts.copy(), np.concatenate(near)
    return over(config, {shape}, tables, own)


def nearest(places: Places, window: int, width: int) -> Places:
    """The last `window` of the positions at `places`."""
    ends = places[:, -1].cumsum()
    skip = int(ends[-1]) - window
    if skip <= 0:
        return places
    left = places[ends > skip].copy()
    gone = skip - int(ends[-len(left)] - left[0, -1])
    if gone > 0:
        left[0, 0] += 4 * gone * width
        left[0, -1] -= gone
    return left


def over(
    config: Config,
    shapes: set[tuple[int, ...]],
    tables: Mapping[int | None, tuple[NDArray[np.int64], Places]],
    own: Places,
) -> Attend:
    """The attention of a pass over keys of these `shapes`, by a table for each size of window: where each query's
    places begin, and all places."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        starts, places = tables[config.window(layer)]
        batch, heads, time, width = q.shape
        kinds = k.shape[1]
        if batch * time != len(own) or heads % kinds or shapes - {(kinds, width)}:
            raise ValueError(f"Lists for {len(own)} queries on other keys; got {tuple(q.shape)}, {tuple(k.shape)}.")
        rows = [flat(x.float()) for x in (q, k, v)]
        out = torch.empty(batch, time, heads, width)
        if watchers:
            seen_by_all, held = int(places[:, -1].sum()), dict[int, int]()
            for first, *_, count in places.tolist():
                held[first] = max(held.get(first, 0), count)
            once = 8 * kinds * width * sum(held.values())  # what forks share is held once
            tell("attend", {"fp32": 4 * heads * width * seen_by_all}, keys=once)
        kernels().attend(
            *(part for x in rows for part in (at(x), Number(x.stride(0)))),
            Number(layer),
            pointer(own),
            pointer(starts),
            pointer(places),
            *map(Number, (batch * time, heads, kinds, width)),
            at(out),
            torch.get_num_threads(),
        )
        return out.transpose(1, 2).to(q.dtype)

    return attend


def flat(x: Tensor) -> Tensor:
    """(batch, heads, time, width) -> (batch * time, heads, width), the heads of a row side by side."""
    rows = x.transpose(1, 2).flatten(0, 1)
    return rows if rows.stride()[1:] == (x.shape[3], 1) else rows.contiguous()


def table(seen: Iterable[Sequence[Stretch]], window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Where each query's places begin (queries + 1,), and all places, as far back as `window` goes."""
    starts, places = [0], []
    for stretches in seen:
        skip = max(sum(count for *_, count in stretches) - window, 0) if window else 0
        for keys, first, count in stretches:
            gone = min(skip, count)
            skip -= gone
            if count > gone:
                places.append(place(keys, first + gone, count - gone))
        starts.append(len(places))
    return np.array(starts, np.int64), np.array(places, np.int64).reshape(-1, FIELDS)


def place(keys: Tensor, first: int, count: int) -> tuple[int, ...]:
    """A `Place` of attention.h."""
    layer, value, head, step, one = keys.stride()
    if (step, one) != (keys.shape[4], 1) or not 0 <= first <= first + count <= keys.shape[3]:
        raise ValueError(f"Positions {first} to {first + count} do not lie side by side in {tuple(keys.shape)}.")
    return keys.data_ptr() + 4 * first * step, layer, value, head, count


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
