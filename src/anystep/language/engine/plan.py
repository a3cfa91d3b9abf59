"""What opening some sequences will cost, known before any of it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from anystep.language.engine.cache import PrefixCache, Tokens, common, path_length

CHUNK = 2048  # positions a prefill pass feeds at most
SHARE = 32  # positions that sharing must save before it is worth a product, or a pass, of its own


@dataclass(frozen=True)
class Unit:
    """One stretch to prefill: `tokens[start:]`, when `tokens[:start]` is cached. `row` is the first that needs it."""

    tokens: Tokens
    start: int
    row: int

    @property
    def length(self) -> int:
        return len(self.tokens) - self.start


@dataclass(frozen=True, eq=False)
class Plan:
    """The price of `Engine.open(plan)`; per row, prefill + cached + shared = the sequence's length.

    `prefill` counts positions still to be computed, `cached` those the cache holds, `shared` those computed for an
    earlier row; `attended` is the key positions that a row's prefill looks at. `units` are the stretches to compute,
    by depth: a depth needs the one before it.
    """

    sequences: tuple[Tokens, ...]
    prefill: np.ndarray
    cached: np.ndarray
    shared: np.ndarray
    attended: np.ndarray
    units: tuple[tuple[Unit, ...], ...]
    version: int

    @property
    def passes(self) -> int:
        """Calls of the model that opening takes."""
        return sum(1 for depth in self.units for _ in passes(depth))


def make_plan(cache: PrefixCache, sequences: Sequence[Tokens]) -> Plan:
    """Finds what is cached and lays out the rest so that what several rows share is computed once.

    Shared beginnings that would save fewer than SHARE positions are computed apart: a pass of their own costs more.
    """
    first: dict[Tokens, int] = {}
    for row, tokens in enumerate(sequences):
        first.setdefault(tokens, row)
    paths = {tokens: cache.match(tokens) for tokens in first}
    groups: dict[Tokens, list[Tokens]] = {}
    for tokens, path in paths.items():
        known = path_length(path)
        if known < len(tokens):
            groups.setdefault(tokens[:known], []).append(tokens)
    depths: list[list[Unit]] = []
    for beginning, members in groups.items():
        for depth, unit in branch(members, len(beginning), 0, first):
            depths.extend([] for _ in range(depth + 1 - len(depths)))
            depths[depth].append(unit)
    prefill, attended = np.zeros((2, len(sequences)), np.int64)
    for unit in (unit for depth in depths for unit in depth):
        prefill[unit.row] += unit.length
        attended[unit.row] += (unit.start + 1 + len(unit.tokens)) * unit.length // 2
    cached = np.array([path_length(paths[tokens]) for tokens in sequences], np.int64)
    lengths = np.array([len(tokens) for tokens in sequences], np.int64)
    shared = lengths - cached - prefill
    return Plan(tuple(sequences), prefill, cached, shared, attended, tuple(map(tuple, depths)), cache.version)


def branch(members: list[Tokens], at: int, depth: int, first: dict[Tokens, int]) -> Iterator[tuple[int, Unit]]:
    """The units of `members`, which agree on [:at] and all go on: common stretches first, then what parts from them."""
    ways: dict[int, list[Tokens]] = {}
    for tokens in members:
        ways.setdefault(tokens[at], []).append(tokens)
    for way in ways.values():
        stop = common(min(way), max(way))  # in lexical order the first and the last differ soonest
        if len(way) > 1 and (len(way) - 1) * (stop - at) < SHARE:
            for tokens in way:
                yield from stretch(tokens, at, depth, first[tokens])
            continue
        row = min(first[tokens] for tokens in way)
        units = list(stretch(way[0][:stop], at, depth, row))
        yield from units
        longer = [tokens for tokens in way if len(tokens) > stop]
        if longer:
            yield from branch(longer, stop, units[-1][0] + 1, first)


def stretch(tokens: Tokens, at: int, depth: int, row: int) -> Iterator[tuple[int, Unit]]:
    """tokens[at:] in pieces of at most CHUNK, each one depth below the one before."""
    for start in range(at, len(tokens), CHUNK):
        yield depth, Unit(tokens[: start + CHUNK], start, row)
        depth += 1


def passes(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Units of one depth in batches of at most CHUNK positions, like lengths together so that little is padded: laid
    out side by side, each as long as the longest, they have at most twice as many places."""
    batch: list[Unit] = []
    for unit in sorted(units, key=lambda unit: unit.length):
        padded = (len(batch) + 1) * unit.length  # the longest so far
        if batch and (sum(u.length for u in batch) + unit.length > CHUNK or padded > 2 * CHUNK):
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch
