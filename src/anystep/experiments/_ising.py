"""A 4 x 4 Ising model small enough to enumerate: uneven couplings of both signs, uneven fields, no symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.process import Floats

Mask = NDArray[np.bool_]
Symbols = NDArray[np.int64]


@dataclass(frozen=True)
class Ising:
    """Spins -1 and 1 (symbols 0 and 1) on a grid: log f(s) = sum of J_ij s_i s_j over neighbours, plus sum of b_i s_i.

    coupling, field: ranges that each J and each b is drawn from, uniformly, by `seed`.
    """

    rows: int = 4
    columns: int = 4
    coupling: tuple[float, float] = (-0.3, 0.7)
    field: tuple[float, float] = (-0.3, 0.6)
    seed: int = 0

    @property
    def length(self) -> int:
        return self.rows * self.columns

    @cached_property
    def drawn(self) -> tuple[Floats, Floats]:
        """Couplings (length, length), above the diagonal, and fields (length,)."""
        rng, at = np.random.Generator(np.random.Philox(self.seed)), np.arange(self.length)
        row, column = np.divmod(at, self.columns)
        near = np.abs(row[:, None] - row) + np.abs(column[:, None] - column) == 1
        couplings = np.triu(near) * rng.uniform(*self.coupling, (self.length, self.length))
        return couplings, rng.uniform(*self.field, self.length)

    def energy(self, x: Tensor) -> Tensor:
        """(n, length) symbols to (n,) log f."""
        couplings, fields = (torch.from_numpy(a) for a in self.drawn)
        s = 2.0 * x.double() - 1
        return ((s @ couplings) * s).sum(-1) + s @ fields

    @cached_property
    def states(self) -> Symbols:
        """(2^length, length) all of them, the first site the highest bit."""
        return np.arange(2**self.length)[:, None] >> np.arange(self.length)[::-1] & 1

    @cached_property
    def log_p(self) -> Floats:
        """(2^length,) of each state, normalised."""
        logs = self.energy(torch.from_numpy(self.states)).numpy()
        return np.asarray(logs - np.logaddexp.reduce(logs))

    def draw(self, n: int, seed: int) -> Symbols:
        """n exact draws."""
        u = np.random.Generator(np.random.Philox(seed)).random(n)
        edges = np.cumsum(np.exp(self.log_p))
        return np.asarray(self.states[np.searchsorted(edges, u * edges[-1], side="right")])

    def log_marginal(self, x: Symbols, mask: Mask) -> Floats:
        """(n,) log p(x_S) by adding up all states that agree with x (n, length) on S, mask (n, length)."""
        bits = 1 << np.arange(self.length)[::-1]
        codes, known, p = np.arange(2**self.length), mask @ bits, np.exp(self.log_p)
        wanted = (x * mask) @ bits
        return np.log([p[(codes & k) == w].sum() for k, w in zip(known, wanted, strict=True)])


def subsets(n: int, length: int, seed: int) -> Mask:
    """(n, length) random sets of known sites: a size uniform from 1 to length, then uniform of that size."""
    rng = np.random.Generator(np.random.Philox(seed))
    rank = rng.random((n, length)).argsort(-1).argsort(-1)
    return np.asarray(rank < rng.integers(1, length + 1, (n, 1)))


def reverse_kl(log_q: Floats, log_p: Floats) -> float:
    """KL(q || p) over enumerated states, both normalised."""
    return float((np.exp(log_q) * (log_q - log_p)).sum())
