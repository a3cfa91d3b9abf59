"""Rows that come and go, their own keys in pages: nothing is laid side by side, so nothing is copied.

What a row finds in the cache it sees by reference, however short; what it has of its own lies in pages of PAGE
positions, which it takes when it needs them and which are used again when it has left. This takes attention by lists of
keys; `slots.py` does without. Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anystep.language.engine.cache import Path, path_length
from anystep.language.engine.llama import Config
from anystep.language.engine.native.attention import Places, by_places, place
from anystep.language.engine.rows import Counters
from anystep.language.engine.slots import Feed

PAGE = 32  # positions of a page


class Pool:
    """Pages that nobody has, at most `most` bytes of them: memory that is warm already."""

    def __init__(self, like: Tensor, most: int) -> None:
        layers, two, heads, _, width = like.shape
        self.like, self.shape = like, (layers, two, heads, PAGE, width)
        self.page_bytes = layers * two * heads * PAGE * width * like.element_size()
        self.most, self.free = most, list[Tensor]()

    @property
    def bytes(self) -> int:
        return len(self.free) * self.page_bytes

    def take(self) -> Tensor:
        """A page with anything in it."""
        return self.free.pop() if self.free else self.like.new_empty(self.shape)

    def give(self, pages: Sequence[Tensor]) -> None:
        """These are no more needed."""
        self.free += pages[: max(0, (self.most - self.bytes) // self.page_bytes)]


@dataclass(eq=False)
class Own:
    """What a row sees: `cached` positions of the cache, then `length` of its pages. `places` has them all in order."""

    cached: int
    places: Places
    pages: list[Tensor] = field(default_factory=list)
    length: int = 0

    @property
    def full(self) -> bool:
        return self.length == len(self.pages) * PAGE


class Pages:
    """The keys of rows that come and go, with the face of `Slots`; `at[row]` is what the row has of its own."""

    def __init__(self, pool: Pool, counters: Counters) -> None:
        self.pool, self.counters = pool, counters
        self.at: dict[int, Own] = {}

    def __len__(self) -> int:
        return len(self.at)

    @property
    def position_bytes(self) -> int:
        """Of the keys and values of one position."""
        return self.pool.page_bytes // PAGE

    @property
    def bytes(self) -> int:
        """Of the rows' pages."""
        return sum(len(own.pages) for own in self.at.values()) * self.pool.page_bytes

    def join(self, paths: Sequence[Path], rows: Sequence[int], most: float = np.inf) -> None:
        """Rows over cached `paths`, for as long as they are pinned. Nothing is taken before their first position."""
        for row, path in zip(rows, paths, strict=True):
            places = np.array([place(span.keys, 0, span.length) for span in path], np.int64)
            self.at[row] = Own(path_length(path), places)

    def leave(self, rows: Sequence[int]) -> None:
        """These rows are gone."""
        for row in rows:
            self.pool.give(self.at.pop(row).pages)

    def own_keys(self, row: int) -> Tensor:
        """A copy of the keys that `row` has of its own: (layers, 2, kv_heads, length, head_dim)."""
        own, (layers, two, heads, _, width) = self.at[row], self.pool.shape
        keys = self.pool.like.new_empty(layers, two, heads, own.length, width)
        for page, part in zip(own.pages, keys.split(PAGE, 3), strict=False):
            part.copy_(page[:, :, :, : part.shape[3]])
        return keys

    def reserve(self, new: int) -> int:
        """Bytes that a row of `new` positions takes when it comes: one page."""
        return self.pool.page_bytes

    def longest(self, paths: Sequence[Path]) -> int:
        """The most that any of `paths` would copy: nothing."""
        return 0

    def needs(self, more: int, longest: int) -> int:
        """Bytes of pages for one more position of every row that is there and of `more`."""
        return self.bytes + (more + sum(own.full for own in self.at.values())) * self.pool.page_bytes

    @property
    def full(self) -> bool:
        """Whether one more position does not fit some row."""
        return any(own.full for own in self.at.values())

    def grown(self) -> int:
        """Bytes of pages once every row has room for one more position."""
        return self.needs(0, 0)

    def feed(self, rows: Sequence[int], config: Config, most: float = np.inf) -> Feed:
        """A pass of one more position for each of `rows`, in their order."""
        chosen = [self.at[row] for row in rows]
        for own in chosen:
            if own.full:
                own.pages.append(self.pool.take())
                own.places = np.concatenate([own.places, [place(own.pages[-1], 0, 0)]])
            own.places[-1, -1] = own.length % PAGE + 1
        targets = np.array([own.places[-1] for own in chosen])
        targets[:, 0] += 4 * (targets[:, -1] - 1) * self.pool.shape[-1]
        targets[:, -1] = 1
        positions = torch.tensor([own.cached + own.length for own in chosen])
        kinds, width = self.pool.shape[2], self.pool.shape[-1]
        attend = by_places(config, (kinds, width), [own.places for own in chosen], targets)
        return Feed(None, positions, attend)

    def fed(self, rows: Sequence[int]) -> None:
        """The pass is over: their position is written."""
        for row in rows:
            self.at[row].length += 1
