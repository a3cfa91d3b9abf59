"""Which sites are revealed first? At random, far from each other, from left to right, or where the model is surest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from anystep.errors import UsageError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sites:
    """What an order may look at, for n rows.

    hidden: (n, length). logs: (n, length) log-probability of the symbol drawn at each hidden site, for orders that
    `read`; zeros for the others. left: (n,) share of the passes that remain after this one. uniform: (n, length) draws
    in [0, 1), the same whenever it is called.
    """

    hidden: Mask
    logs: Floats
    left: Floats
    uniform: Callable[[], Floats]


class Order(ABC):
    """Ranks the hidden sites; each pass reveals the first ones.

    reads: whether the ranking depends on what was drawn; the path's log-probability is then not known. random: whether
    it draws.
    """

    reads: ClassVar[bool] = False
    random: ClassVar[bool] = False

    @abstractmethod
    def rank(self, sites: Sites) -> Floats:
        """(n, length); the hidden sites with the highest numbers are revealed, the lower index first among equals."""

    def logp(self, hidden: NDArray[np.int64], count: NDArray[np.int64]) -> Floats:
        """(n,) log-probability of having chosen these `count` of `hidden` sites; 0 where the order is fixed."""
        return np.zeros(len(hidden))

    def choices(self, hidden: Mask, count: int) -> Iterator[tuple[tuple[int, ...], float]]:
        """Every set of `count` hidden sites of one row, (length,), that a pass may reveal, with its probability."""
        rank = self.rank(Sites(hidden[None], np.zeros((1, len(hidden))), np.zeros(1), _no_draws))[0]
        yield tuple(np.flatnonzero(first(rank[None], hidden[None], np.array([count]))[0]).tolist()), 1.0


@dataclass(frozen=True)
class Random(Order):
    """Every set of hidden sites equally likely. Preserves the model's law when steps = length."""

    random: ClassVar[bool] = True

    def rank(self, sites: Sites) -> Floats:
        return sites.uniform()

    def logp(self, hidden: NDArray[np.int64], count: NDArray[np.int64]) -> Floats:
        return np.asarray(gammaln(hidden - count + 1) + gammaln(count + 1) - gammaln(hidden + 1))

    def choices(self, hidden: Mask, count: int) -> Iterator[tuple[tuple[int, ...], float]]:
        sets = list(combinations(np.flatnonzero(hidden).tolist(), count))
        yield from ((chosen, 1 / len(sets)) for chosen in sets)


@dataclass(frozen=True)
class Spread(Order):
    """Every other site before the ones between, at every scale: the sites of one pass lie far from each other.

    Sites that are revealed together are drawn independently, which costs least where they depend on each other least;
    on things whose near sites depend on each other most, that is far apart. Preserves the model's law when steps =
    length. shape: of the grid whose sites, row by row, the sequence lists, such as (5, 26); by default one dimension.
    Raises UsageError where the grid has another number of sites than the sequence.
    """

    shape: tuple[int, ...] = ()

    def rank(self, sites: Sites) -> Floats:
        length = sites.hidden.shape[1]
        shape = self.shape or (length,)
        if int(np.prod(shape)) != length:
            raise UsageError(
                f"Spread(shape={shape}) is a grid of {int(np.prod(shape))} sites, the sequence has {length}."
            )
        return np.broadcast_to(-_reversed_bits(shape), sites.hidden.shape)


@dataclass(frozen=True)
class LeftToRight(Order):
    """As a sentence is read. With steps = length it is autoregressive decoding, and preserves the model's law."""

    def rank(self, sites: Sites) -> Floats:
        return np.broadcast_to(-np.arange(sites.hidden.shape[1], dtype=np.float64), sites.hidden.shape)


@dataclass(frozen=True)
class Confidence(Order):
    """MaskGIT: draw every hidden site, keep the draws of which the model was surest.

    Preserves nothing, at any number of steps and with a perfect model: likely symbols are kept and unlikely ones drawn
    again, so samples crowd at the modes. noise: of the Gumbel draws added to the log-probabilities, falling linearly to
    0 at the last pass; 0 crowds most, and with much noise the first passes are in random order.

    Source: Chang et al., "MaskGIT: Masked Generative Image Transformer" (CVPR 2022). Raises UsageError for a negative
    noise.
    """

    noise: float = 4.0

    reads: ClassVar[bool] = True
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.noise < np.inf:
            raise UsageError(f"Confidence(noise={self.noise!r}): 0 or more; Confidence(noise=4.0).")

    def rank(self, sites: Sites) -> Floats:
        if self.noise == 0:
            return sites.logs
        gumbel = -np.log(-np.log(np.clip(sites.uniform(), 1e-300, None)))
        return np.asarray(sites.logs + self.noise * sites.left[:, None] * gumbel)


def first(rank: Floats, hidden: Mask, count: NDArray[np.int64]) -> Mask:
    """(n, length) the `count` hidden sites of each row that rank highest."""
    order = np.lexsort((-rank, ~hidden), axis=-1)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(rank.shape[1]), rank.shape), -1)
    return np.asarray((places < count[:, None]) & hidden)


def _reversed_bits(shape: tuple[int, ...]) -> Floats:
    """(sites,) each site's place when its coordinates' bits, interleaved, are read backwards; on a grid the parity of
    the coordinates comes first, so that diagonal neighbours are revealed before those that share a side."""
    at = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape))
    bits, place = max(int(n - 1).bit_length() for n in shape), np.zeros(at.shape[1])
    for bit in range(bits):
        each = (at >> bit) & 1
        for digit in (each.sum(0) % 2, *each[1:]):
            place = 2 * place + digit
    return place


def _no_draws() -> Floats:
    raise UsageError("this order's choices cannot be enumerated; use one that does not read what was drawn.")
