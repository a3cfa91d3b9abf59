"""The keys that a batch of rows sees: shared stretches by reference, each row's own in a padded buffer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep.language.engine.attention import Level, Sight
from anystep.language.engine.cache import Path, Span, path_length
from anystep.language.engine.plan import SHARE


@dataclass
class Counters:
    """What an engine has done since it was made. Bytes are of keys and values."""

    passes: int = 0  # calls of the model
    positions: int = 0  # positions fed to it
    prefilled: int = 0  # of these, positions of prompts
    served: int = 0  # positions of prompts that came from the cache or an earlier row
    copied_prompt_bytes: int = 0  # of cached stretches, into a row's own buffer
    copied_own_bytes: int = 0  # of a row's own buffer: making room, closing ranks, writing back


class Rows:
    """Slots 0..n-1, one a row, over cached `paths`.

    A stretch is seen by reference when copying it to the rows that share it would move more than SHARE positions
    beyond the first; what is left of each path is copied to the row's buffer, behind which new keys are written.
    """

    def __init__(self, paths: Sequence[Path], like: Tensor, room: int, counters: Counters) -> None:
        """`like` (layers, 2, kv_heads, 0, head_dim) gives shape and type; `room` positions are kept free a row."""
        self.counters = counters
        users = Counter((span.segment, span.length) for path in paths for span in path)
        self.shared = [by_reference(path, users) for path in paths]
        rest = [path[len(shared) :] for path, shared in zip(paths, self.shared, strict=True)]
        self.base = np.array([path_length(path) for path in self.shared], np.int64)
        self.own = np.array([path_length(path) for path in rest], np.int64)
        layers, two, heads, _, width = like.shape
        self.buffer = blank(like, layers, two, len(paths), heads, int(self.own.max(initial=0)) + room, width)
        for slot, path in enumerate(rest):
            at = 0
            for span in path:
                self.buffer[:, :, slot, :, at : at + span.length] = span.keys
                at += span.length
                counters.copied_prompt_bytes += span.keys.nbytes
        self.ahead = 0  # positions behind a slot's own that hold keys of what it was only shown
        self._levels: tuple[int, list[Level]] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Positions that each slot sees."""
        return self.base + self.own

    def levels(self, n: int) -> list[Level]:
        """What the first n slots see by reference, as products side by side, from the roots down."""
        if self._levels is None or self._levels[0] != n:
            found = []
            for users in self._users(n):
                slots = tuple(torch.tensor(slots, device=self.buffer.device) for slots in users.values())
                everyone = len(users) == 1 and len(slots[0]) == n
                found.append(Level(tuple(span.keys for span in users), slots, (None,) * len(users), everyone))
            self._levels = n, found
        return self._levels[1]

    def _users(self, n: int) -> Iterator[dict[Span, list[int]]]:
        """Depth by depth, the slots among the first n that see a stretch by reference."""
        for depth in range(max((len(path) for path in self.shared[:n]), default=0)):
            users: dict[Span, list[int]] = {}
            for slot, path in enumerate(self.shared[:n]):
                if depth < len(path):
                    users.setdefault(path[depth], []).append(slot)
            yield users

    def kept(self, slot: int) -> Tensor:
        """The buffer of one slot: (layers, 2, kv_heads, size, head_dim)."""
        return self.buffer[:, :, slot]

    def stretches(self, slot: int) -> list[tuple[Tensor, int, int]]:
        """All that a slot sees, in order: keys, and how many of them from which on."""
        shared = [(span.keys, 0, span.length) for span in self.shared[slot]]
        return [*shared, (self.kept(slot), 0, int(self.own[slot]))]

    def near(self, n: int, window: int, ahead: Tensor) -> list[Level]:
        """`levels` for layers with a window, when each slot has queries `ahead` (n, time) of its next position.

        Of a stretch only what some query sees is left, and only the slots that see any of it.
        """
        found, device, last = [], self.buffer.device, ahead.amax(1).numpy()
        begins = np.zeros(n, np.int64)  # where each slot's next stretch begins
        for users in self._users(n):
            keys, rows, sights = [], [], []
            for span, slots in users.items():
                some = np.array(slots)
                first = self.lengths[some] - window + 1 - begins[some]  # of the stretch, that the first query sees
                begins[some] += span.length
                low, some = max(int(first.min()), 0), some[first < span.length]
                if not len(some):
                    continue
                first = first[first < span.length]
                sight = None
                if int((first + last[some]).max()) > low:
                    since = torch.from_numpy(first)[:, None] + ahead[some]
                    sight = Sight.of((torch.arange(low, span.length) >= since[..., None]).to(device))
                keys.append(span.keys[:, :, :, low:])
                rows.append(torch.from_numpy(some).to(device))
                sights.append(sight)
            if keys:
                found.append(Level(tuple(keys), tuple(rows), tuple(sights), len(keys) == 1 and len(rows[0]) == n))
        return found

    def mask(self, n: int, window: int | None = None) -> tuple[int, Tensor]:
        """Which buffer positions the next query of each of the first n slots sees, one more than the slot has: the
        first that any of them sees, and additive (n, longest) from there on."""
        own = torch.from_numpy(self.own[:n])
        low = max(int(own.min()) - window + 1, 0) if window else 0
        at = torch.arange(low, int(own.max()) + 1)
        seen = at <= own[:, None]
        if window:
            seen &= at > own[:, None] - window
        return low, torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf).to(self.buffer.device)

    def past(self, n: int, window: int | None, time: int) -> tuple[int, Sight | None]:
        """What `time` queries at the next positions of each of the first n slots see of the buffer: the first position
        that any of them sees, and their sight from there on; None where they see nothing of it."""
        own = torch.from_numpy(self.own[:n])[:, None, None]
        low = max(int(own.min()) - window + 1, 0) if window else 0
        at = torch.arange(low, int(own.max()))
        if not len(at):
            return low, None
        seen = at < own
        if window:
            seen = seen & (at > own + torch.arange(time)[:, None] - window)
        return low, Sight.of(seen.expand(n, time if window else 1, len(at)).to(self.buffer.device))

    def beside(self, n: int, window: int | None, ahead: Tensor, family: Tensor) -> tuple[int, Tensor]:
        """What queries `ahead` (n, time) of each slot's next position see of the buffer when their own keys stand
        behind the slot's, as `family` (n, time, time) lets them: the first position that any sees, and additive
        (n, time, keys) from there on."""
        own, time = torch.from_numpy(self.own[:n])[:, None], ahead.shape[1]
        low = max(int(own.min()) - window + 1, 0) if window else 0
        at = torch.arange(low, int(own.max()) + time)
        seen = (at < own)[:, None].expand(n, time, len(at)).clone()
        if window:
            seen &= at > (own + ahead)[..., None] - window
            family = family & (ahead[:, :, None] - ahead[:, None, :] < window)
        seen.scatter_(2, (own + torch.arange(time) - low)[:, None].expand(n, time, time), family)
        return low, torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf).to(self.buffer.device)

    def make_room(self, ahead: int = 1) -> None:
        """Positions for `ahead` more of every slot, at least doubling the buffer when it is full."""
        size, needed = self.buffer.shape[4], int(self.own.max()) + ahead
        if needed > size:
            longer = blank(self.buffer, *self.buffer.shape[:4], max(2 * size, needed), self.buffer.shape[5])
            longer[:, :, :, :, :size] = self.buffer
            self.counters.copied_own_bytes += self.buffer.nbytes
            self.buffer = longer

    def exchange(self, some: np.ndarray, others: np.ndarray) -> None:
        """Slots `some` change places with slots `others`."""
        if not len(some):
            return
        here, there = np.concatenate([some, others]), np.concatenate([others, some])
        longest = int(self.own[here].max()) + self.ahead
        moved = self.buffer[:, :, torch.from_numpy(there), :, :longest]
        self.buffer[:, :, torch.from_numpy(here), :, :longest] = moved
        self.counters.copied_own_bytes += moved.nbytes
        self.base[here], self.own[here] = self.base[there], self.own[there]
        for a, b in zip(some.tolist(), others.tolist(), strict=True):
            self.shared[a], self.shared[b] = self.shared[b], self.shared[a]
        self._levels = None


def blank(like: Tensor, *shape: int) -> Tensor:
    """Zeros of the type of `like`, in memory that is not touched until it is written: most of a buffer never is."""
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64, torch.float16):
        return like.new_zeros(*shape)
    return torch.from_numpy(np.zeros(shape, str(like.dtype).removeprefix("torch.")))


def by_reference(path: Path, users: Counter) -> Path:
    """The part of `path`, from its root, that is worth a product of its own."""
    for depth, span in enumerate(path):
        if (users[span.segment, span.length] - 1) * span.length < SHARE:
            return path[:depth]
    return path
