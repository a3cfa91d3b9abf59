"""A token a row of logits through the compiled kernels: softmax and its inverse distribution in double precision, at
the draw that belongs to a key and a position."""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.language.engine.native import library
from anystep.language.engine.native.attention import pointer
from anystep.language.engine.native.layers import Number, at, kernels


def draws(logits: Tensor) -> bool:
    """Whether the kernel can draw from logits (rows, vocab) like these."""
    fits = logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.dim() == 2
    return fits and logits.shape[1] > 0 and logits.stride(1) == 1 and library() is not None


def drawn(logits: Tensor, u: NDArray[np.float64], temperature: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`sampling.draw` without a nucleus, at a temperature above 0: tokens, and their probabilities. Sums of doubles are
    added in another order here, so a token differs where u is within some 1e-14 of an edge between two."""
    rows, vocab = logits.shape
    u = np.ascontiguousarray(u, np.float64)
    if len(u) != rows:
        raise ValueError(f"One u for each of {rows} rows of logits; got {len(u)}.")
    tokens, shares = np.zeros(rows, np.int64), np.zeros(rows)
    kernels().draw(
        at(logits),
        *map(Number, (logits.stride(0), rows, vocab)),
        pointer(u),
        ctypes.c_double(1 / temperature),
        pointer(tokens),
        pointer(shares),
        torch.get_num_threads(),
    )
    return tokens, shares


def uniforms(keys: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """`keys.uniforms(keys, positions)`, both (n,), to the last bit."""
    if library() is None:
        return lineage.uniforms(keys, positions)
    keys, positions = (np.ascontiguousarray(x, np.uint64) for x in (keys, positions))
    if keys.shape != positions.shape:
        raise ValueError(f"A position for each key; got {positions.shape} for {keys.shape}.")
    found = np.zeros(len(keys))
    kernels().uniforms(pointer(keys), pointer(positions), Number(len(keys)), pointer(found))
    return found
