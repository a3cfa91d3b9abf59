"""Randomness by lineage: every state owns a key, and every draw is a pure function of (key, position).

Because a child's key depends only on its parent's key, the process that made it and its ordinal among its siblings,
`sample(4)` is a prefix of `sample(8)`, and batching, arrival order, resuming and merging change no draw.

The generator is Philox4x32-10, a counter-based hash. Source: Salmon et al., "Parallel Random Numbers: As Easy as
1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Keys = NDArray[np.uint64]

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLY = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
ROUNDS = 10
CHUNK = 16_384  # numbers made at a time: as many as stay in a processor's cache
_LINEAGE, _UNIFORM = np.uint64(1), np.uint64(2)  # separate streams, so that a draw can never equal a child's key


def philox(counter: Sequence[ArrayLike], key: ArrayLike) -> tuple[Keys, Keys, Keys, Keys]:
    """Four 32-bit words (held as uint64) of a 4 x 32-bit counter under a 64-bit key; all arguments broadcast."""
    words = [np.asarray(c, dtype=np.uint64) for c in counter]
    k = np.asarray(key, dtype=np.uint64)
    shape = np.broadcast(*words, k).shape
    even, odd = (np.empty((2, *shape), np.uint64) for _ in range(2))  # words 0 and 2, words 1 and 3
    even[0], odd[0], even[1], odd[1] = words
    even &= _MASK
    odd &= _MASK
    low = np.stack([k & _MASK, k >> _SHIFT]).reshape(2, *(1,) * (len(shape) - k.ndim), *k.shape)
    turns = np.arange(ROUNDS, dtype=np.uint64).reshape(-1, 1, *(1 for _ in shape))
    schedule = (low + turns * _column(_WEYL, shape)) & _MASK
    multiply = _column(_MULTIPLY, shape)
    product = np.empty_like(even)
    for turn in schedule:  # in place: most of the time would go to new arrays
        np.multiply(multiply, even, out=product)
        np.right_shift(product[::-1], _SHIFT, out=even)
        even ^= odd
        even ^= turn
        np.bitwise_and(product[::-1], _MASK, out=odd)
    return even[0], odd[0], even[1], odd[1]


def _column(pair: tuple[np.uint64, np.uint64], shape: tuple[int, ...]) -> Keys:
    return np.array(pair, np.uint64).reshape(2, *(1 for _ in shape))


def children(parents: ArrayLike, by: int, ordinals: ArrayLike) -> Keys:
    """Keys of children: one per (parent key, maker `by`, ordinal among the siblings that maker gave the parent)."""
    a, b, _, _ = philox((ordinals, by & 0xFFFFFFFF, by >> 32, _LINEAGE), parents)
    return np.atleast_1d((a << _SHIFT) | b)


def roots(seed: int, path: Sequence[int], ordinals: ArrayLike) -> Keys:
    """Keys of states without parents: one per ordinal, under a run's seed and its generator's path in `together`."""
    base = np.uint64(named(f"{seed}"))
    for turn in path:
        base = children(base, 1, turn)[0]
    return children(base, 2, ordinals)


def named(name: str) -> int:
    """A 64-bit number for a name, the same in every process and under every hash seed."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def uniforms(keys: ArrayLike, position: ArrayLike = 0, lane: ArrayLike = 0) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) with 53 bits, one per key, at a position (a state's own clock) and a lane within it."""
    where = np.asarray(position, dtype=np.uint64)
    a, b, _, _ = philox((where, where >> _SHIFT, lane, _UNIFORM), keys)
    return np.asarray(((a >> np.uint64(5)) * np.float64(2**26) + (b >> np.uint64(6))) / np.float64(2**53))


def normals(keys: ArrayLike, position: ArrayLike = 0, size: int = 1) -> NDArray[np.float64]:
    """Standard normal draws, shape (keys, size), by Box and Muller on consecutive lanes."""
    column = np.asarray(keys, dtype=np.uint64)
    where = np.broadcast_to(np.asarray(position, dtype=np.uint64), (len(column),))
    lanes = np.arange(2 * size, dtype=np.uint64)
    drawn, rows = np.empty((len(column), size)), max(1, CHUNK // max(1, 2 * size))
    for at in range(0, len(column), rows):
        part = slice(at, at + rows)
        u = uniforms(column[part, None], where[part, None], lanes)
        drawn[part] = np.sqrt(-2.0 * np.log1p(-u[:, ::2])) * np.cos(2 * np.pi * u[:, 1::2])
    return drawn


def choose(probabilities: NDArray[np.float64], u: ArrayLike) -> NDArray[np.int64]:
    """Index drawn from each row of (n, k) probabilities by inverse distribution at u in [0, 1), shape (n,)."""
    edges = np.cumsum(probabilities, -1)
    target = np.asarray(u, dtype=np.float64)[:, None] * edges[:, -1:]
    return np.asarray(np.minimum((edges <= target).sum(-1), probabilities.shape[-1] - 1))
