"""Slots that rows come into and leave, while a pass runs over one contiguous window of them.

When a row has left, those that stay are brought together with as few moves as that takes: a window as long as there
are rows slides over the slots to where most of them are already, and each row outside it moves into a hole inside. So
the buffers of the rows are a slice, and nothing is gathered for a pass. Source: Yao et al., "Flover: A Temporal Fusion
Framework for Efficient Autoregressive Model Parallel Inference" (2023).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.language.engine.cache import Path, Segment, Span, path_length
from anystep.language.engine.decoding import one_each
from anystep.language.engine.llama import Attend, Config
from anystep.language.engine.plan import SHARE
from anystep.language.engine.rows import Counters, Rows, blank

ROOM = 32  # positions of a row's own that are reserved at first

Moves = list[tuple[int, int]]  # from a slot into another, in turn
Arrange = Callable[[np.ndarray, int], tuple[int, int, Moves]]


def window(active: np.ndarray, total: int) -> tuple[int, int, Moves]:
    """Where the pass begins, how many slots it runs over, and which rows must move first, as (from, to).

    active: the slots of the rows that are to be in it, ascending; total: how many slots there are. The window is as
    long as there are rows, and stands where most of them are already, the first such place on a tie; so the moves are
    the fewest that leave no hole.
    """
    n = len(active)
    there = np.zeros(total + 1, np.int64)
    there[active + 1] = 1
    before = np.cumsum(there)
    low = int(np.argmax(before[n:] - before[: total + 1 - n]))
    inside = (active >= low) & (active < low + n)
    holes = np.setdiff1d(np.arange(low, low + n), active)
    return low, n, list(zip(active[~inside].tolist(), holes.tolist(), strict=True))


class Feed(NamedTuple):
    """A pass of one more position for some rows: where each of them stands in it, None where that is their own order;
    the positions of all that it runs over (width,), and what they attend to."""

    at: NDArray[np.int64] | None
    positions: Tensor
    attend: Attend


@dataclass(frozen=True)
class Stretch(Span):
    """`length` positions of a segment from `start` on."""

    start: int = 0

    @property
    def keys(self) -> Tensor:
        return self.segment.keys[:, :, :, self.start : self.start + self.length]


class Slots(Rows):
    """The keys of rows that come and go. `row[slot]` is whose it is, or -1, and `at[row]` its slot.

    arrange: which slots a pass runs over, such as `window`.
    """

    def __init__(self, like: Tensor, counters: Counters, arrange: Arrange = window) -> None:
        super().__init__([], like, 0, counters)
        self.arranged = arrange
        self.paths: list[Path] = []  # by slot: what it was given from the cache
        self.copied = np.zeros(0, np.int64)  # by slot: how much of the buffer came from there
        self.row = np.full(0, -1)
        self.at: dict[int, int] = {}
        self.moved = 0  # rows moved from slot to slot so far
        self._views: dict[int, Slots] = {}

    def __len__(self) -> int:
        return len(self.at)

    @property
    def position_bytes(self) -> int:
        """Of the keys and values of one position."""
        layers, two, _, heads, _, width = self.buffer.shape
        return layers * two * heads * width * self.buffer.element_size()

    @property
    def bytes(self) -> int:
        """Of the buffer."""
        return self.buffer.nbytes

    def feed(self, rows: Sequence[int], config: Config, most: float = np.inf) -> Feed:
        """A pass of one more position for each of `rows`. The buffer grows beyond `most` bytes only where it must."""
        self.make_room(most=most)
        low, width = self.arrange(rows)
        laid = self.since(low)
        at = np.array([self.at[row] for row in rows]) - low
        return Feed(at, torch.from_numpy(laid.lengths[:width].copy()), one_each(laid, width, config))

    def fed(self, rows: Sequence[int]) -> None:
        """The pass is over: their position is written."""
        self.own[[self.at[row] for row in rows]] += 1

    def since(self, low: int) -> Slots:
        """These slots without the first `low`: what changes in one changes in the other."""
        if low not in self._views:
            view = copy.copy(self)
            view.buffer, view.base, view.own = self.buffer[:, :, low:], self.base[low:], self.own[low:]
            view.shared, view._levels = self.shared[low:], None
            self._views[low] = view
        return self._views[low]

    def join(self, paths: Sequence[Path], rows: Sequence[int], most: float = np.inf) -> None:
        """Lays out rows over cached `paths`, for as long as they are pinned; what rows that are there share with them
        is seen by reference from now on. The buffer grows beyond `most` bytes only where it must."""
        taken = list(self.at.values())
        laid = lay([*(self.paths[slot] for slot in taken), *paths], [*self.base[taken].tolist(), *([0] * len(paths))])
        for slot, (shared, _) in zip(taken, laid, strict=False):
            self._refer(slot, shared)
        fresh = laid[len(taken) :]
        self._fit(len(paths), max((path_length(rest) for _, rest in fresh), default=0) + ROOM, most)
        for slot, row, path, (shared, rest) in zip(self._free(), rows, paths, fresh, strict=False):
            self.row[slot], self.at[row], self.paths[slot], self.shared[slot] = row, slot, path, shared
            self.base[slot], at = path_length(shared), 0
            for span in rest:
                self.buffer[:, :, slot, :, at : at + span.length] = span.keys
                at += span.length
                self.counters.copied_prompt_bytes += span.keys.nbytes
            self.own[slot] = self.copied[slot] = at
        self._changed()

    def leave(self, rows: Sequence[int]) -> None:
        """Frees the slots of `rows`; with the last one the buffer goes too."""
        for row in rows:
            slot = self.at.pop(row)
            self.row[slot], self.paths[slot], self.shared[slot] = -1, (), ()
            self.base[slot] = self.own[slot] = self.copied[slot] = 0
        if not self.at:
            self._lay_out(0, 0)
        self._changed()

    def own_keys(self, row: int) -> Tensor:
        """A copy of the keys that `row` has beyond what it was given: (layers, 2, kv_heads, length, head_dim)."""
        slot = self.at[row]
        return self.buffer[:, :, slot, :, self.copied[slot] : self.own[slot]].clone()

    def arrange(self, rows: Sequence[int]) -> tuple[int, int]:
        """Brings `rows` into one window of slots, and says where it begins and how long it is."""
        active = np.sort([self.at[row] for row in rows])
        low, width, moves = self.arranged(active, len(self.row))
        for here, there in moves:
            self._move(here, there)
        if moves:
            self._changed()
        return low, width

    def longest(self, paths: Sequence[Path]) -> int:
        """The most that any of `paths` would copy into the buffer were they to join."""
        there = [self.paths[slot] for slot in self.at.values()]
        laid = lay([*there, *paths], [0] * (len(there) + len(paths)))[len(there) :]
        return max((path_length(rest) for _, rest in laid), default=0)

    def reserve(self, new: int) -> int:
        """Bytes that a row of `new` positions takes when it comes, all of them copied."""
        return (new + ROOM) * self.position_bytes

    def grown(self) -> int:
        """The fewest bytes of a buffer in which every row has room for more."""
        return self.needs(0, int(self.own.max()) + ROOM)

    def needs(self, more: int, longest: int) -> int:
        """The fewest bytes of a buffer for the rows that are there and `more`, of which one has `longest` positions."""
        return (len(self) + more) * max(longest, int(self.own.max(initial=0)) + 1) * self.position_bytes

    @property
    def full(self) -> bool:
        """Whether one more position does not fit some row."""
        return int(self.own.max(initial=0)) == self.buffer.shape[4]

    def make_room(self, ahead: int = 1, most: float = np.inf) -> None:
        """Positions for `ahead` more of every row; the buffer grows beyond `most` bytes only where it must."""
        if int(self.own.max(initial=0)) + ahead > self.buffer.shape[4]:
            self._fit(0, int(self.own.max()) + max(ahead, ROOM), most)

    def _free(self) -> list[int]:
        """Slots that no row has: holes first, then those next to where rows are, which so stay together."""
        taken, free = np.flatnonzero(self.row >= 0), np.flatnonzero(self.row < 0)
        if not len(taken):
            return free.tolist()
        away = np.maximum(taken.min() - free, free - taken.max())
        return free[np.argsort(np.maximum(away, 0), kind="stable")].tolist()

    def _fit(self, more: int, longest: int, most: float) -> None:
        """Makes the buffer large enough for `more` rows beside those there, each of up to `longest` positions: doubled,
        so that growing is rare, or no larger than it must be where the old and the new one would exceed `most`."""
        slots, size = len(self.row), self.buffer.shape[4]
        enough_slots, enough_size = len(self) + more, max(longest, int(self.own.max(initial=0)) + 1)
        if slots >= enough_slots and size >= enough_size:
            return
        wide = slots if slots >= enough_slots else max(enough_slots, 2 * slots)
        long = size if size >= enough_size else max(enough_size, 2 * size)
        if wide * long * self.position_bytes + self.buffer.nbytes > most:
            wide, long = enough_slots, enough_size
        self._lay_out(wide, long)

    def _lay_out(self, slots: int, size: int) -> None:
        """A new buffer, into whose first slots those that are taken go, in order."""
        order = sorted(self.at.values())
        layers, two, _, heads, _, width = self.buffer.shape
        longest = int(self.own.max(initial=0))
        longer = blank(self.buffer, layers, two, slots, heads, size, width)
        for new, old in enumerate(order):
            longer[:, :, new, :, :longest] = self.buffer[:, :, old, :, :longest]
        self.counters.copied_own_bytes += len(order) * longest * self.position_bytes
        self.buffer, more = longer, slots - len(order)
        self.base, self.own, self.copied = (np.pad(x[order], (0, more)) for x in (self.base, self.own, self.copied))
        self.row = np.pad(self.row[order], (0, more), constant_values=-1)
        self.shared = [*(self.shared[slot] for slot in order), *([()] * more)]
        self.paths = [*(self.paths[slot] for slot in order), *([()] * more)]
        self.at = {int(row): slot for slot, row in enumerate(self.row.tolist()) if row >= 0}
        self._changed()

    def _refer(self, slot: int, shared: Path) -> None:
        """A row sees more by reference, and its own buffer begins after that."""
        more = path_length(shared) - int(self.base[slot])
        self.shared[slot] = shared
        if more:
            left = self.buffer[:, :, slot, :, more : self.own[slot]].clone()
            self.buffer[:, :, slot, :, : left.shape[3]] = left
            self.counters.copied_own_bytes += left.nbytes
            self.base[slot] += more
            self.own[slot] -= more
            self.copied[slot] -= more

    def _move(self, here: int, there: int) -> None:
        """The row at `here` goes to `there`; one that is there comes here."""
        if self.row[there] >= 0:
            self.exchange(np.array([here]), np.array([there]))
        else:
            longest = int(self.own[here])
            self.buffer[:, :, there, :, :longest] = self.buffer[:, :, here, :, :longest]
            self.counters.copied_own_bytes += longest * self.position_bytes
            self.base[[here, there]], self.own[[here, there]] = self.base[[there, here]], self.own[[there, here]]
            self.shared[here], self.shared[there] = self.shared[there], self.shared[here]
        self.moved += 1
        self.paths[here], self.paths[there] = self.paths[there], self.paths[here]
        for books in (self.copied, self.row):
            books[[here, there]] = books[[there, here]]
        self.at |= {int(self.row[slot]): slot for slot in (here, there) if self.row[slot] >= 0}

    def _changed(self) -> None:
        self._views, self._levels = {}, None


def lay(paths: Sequence[Path], bases: Sequence[int]) -> list[tuple[Path, Path]]:
    """For each of `paths` what is seen by reference, at least the first `bases` positions, and what is left to copy.

    A segment is cut where paths part, so that those who have it in common share the same stretches of it.
    """
    ends: dict[Segment, set[int]] = {}
    for path, base in zip(paths, bases, strict=True):
        at = 0
        for span in path:
            cuts = ends.setdefault(span.segment, set())
            cuts.add(span.length)
            if at < base < at + span.length:
                cuts.add(base - at)
            at += span.length
    stretches = [[s for span in path for s in _stretches(span, ends[span.segment])] for path in paths]
    users = Counter(stretch for path in stretches for stretch in path)
    laid: list[tuple[Path, Path]] = []
    for parts, base in zip(stretches, bases, strict=True):
        depth = next((i for i, s in enumerate(parts) if (users[s] - 1) * s.length < SHARE), len(parts))
        while path_length(tuple(parts[:depth])) < base:
            depth += 1
        laid.append((tuple(parts[:depth]), tuple(parts[depth:])))
    return laid


def _stretches(span: Span, cuts: set[int]) -> list[Stretch]:
    """`span` in pieces that end at `cuts`."""
    ends = sorted(cut for cut in cuts if cut <= span.length)
    return [Stretch(span.segment, stop - start, start) for start, stop in zip([0, *ends], ends, strict=False)]
