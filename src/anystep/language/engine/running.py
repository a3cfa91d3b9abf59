"""A session that rows join and leave while it runs: one pass serves all that are there, and prompts on their way in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anystep.errors import Unsupported, UsageError
from anystep.language.engine.cache import Path, Segment, Tokens, path_length
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.llama import Attend
from anystep.language.engine.native.attention import attends
from anystep.language.engine.packed import Packed
from anystep.language.engine.pages import Pages
from anystep.language.engine.plan import Unit
from anystep.language.engine.slots import ROOM, Arrange, Feed, Slots, window
from anystep.language.engine.trees import Tree

if TYPE_CHECKING:
    from anystep.language.engine.engine import Engine


class Running(Decoding):
    """`Decoding` without a fixed set of rows: `join` gives numbers to new ones, `leave` takes them back.

    It holds `bytes` of keys: those its rows see in the cache, which it pins, and its own buffer.
    """

    def __init__(self, engine: Engine, arrange: Arrange | None = None) -> None:
        """arrange: how rows keep side by side, `slots.window` where none is given and they must; otherwise `pages`."""
        self.engine = engine
        self.paths, self.tokens, self.trace = [], [], []
        self.hidden = engine.like.new_zeros(0, engine.config.dim)
        self.live, self.origin = np.zeros(0, bool), np.zeros(0, np.int64)
        self.slots: Slots | Pages = (
            Pages(engine.pages, engine.counters)
            if arrange is None and attends(engine.like)
            else Slots(engine.like, engine.counters, arrange or window)
        )
        self.fresh = itertools.count()
        self.looked = {}

    @property
    def bytes(self) -> int:
        return self.slots.bytes + sum(segment.bytes for segment in self.pinned())

    def pinned(self) -> set[Segment]:
        """The cached segments that rows see."""
        return {span.segment for path in self.paths for span in path}

    def needs(self, sequences: Sequence[Tokens]) -> int:
        """The fewest bytes of a buffer for the rows that are there and `sequences`, which are cached."""
        paths = [self.engine.cache.match(tokens) for tokens in sequences]
        return self.slots.needs(len(paths), self.slots.longest(paths) + ROOM)

    @torch.inference_mode()
    def join(self, sequences: Sequence[Tokens], most: float = np.inf) -> list[int]:
        """Numbers of new rows for `sequences`, of which the cache must hold every position.

        most: bytes that the buffer of all rows keeps to where it can. Raises UsageError for what is not cached: open
        it first, `engine.open(engine.plan(sequences)).close()`, or let `append(..., units)` compute it.
        """
        cache = self.engine.cache
        paths = [cache.match(tokens) for tokens in sequences]
        if any(path_length(path) < len(tokens) or not tokens for path, tokens in zip(paths, sequences, strict=True)):
            raise UsageError("join(sequences) takes what is cached: engine.open(engine.plan(sequences)).close() first.")
        rows = self._numbers(len(sequences))
        self.slots.join(paths, rows, most)
        origin: dict[Tokens, int] = {}
        for row, tokens, path in zip(rows, sequences, paths, strict=True):
            cache.pin(path)
            self.paths[row], self.tokens[row], self.trace[row] = path, list(tokens), []
            self.hidden[row] = path[-1].segment.hidden[path[-1].length - 1]
            self.origin[row] = origin[tokens] if tokens in origin else origin.setdefault(tokens, next(self.fresh))
        self.live[rows] = True
        return rows

    def _numbers(self, n: int) -> list[int]:
        """Numbers that no row has, the least first."""
        more = n - (len(self) - len(self.slots))
        if more > 0:
            self.paths += [()] * more
            self.tokens += [[] for _ in range(more)]
            self.trace += [[] for _ in range(more)]
            self.hidden = torch.cat([self.hidden, self.hidden.new_zeros(more, self.hidden.shape[1])])
            self.live, self.origin = np.pad(self.live, (0, more)), np.pad(self.origin, (0, more))
        return [row for row in range(len(self)) if row not in self.slots.at][:n]

    @torch.inference_mode()
    def append(  # type: ignore[override]
        self,
        tokens: Sequence[int],
        rows: Sequence[int] | np.ndarray | None = None,
        units: Sequence[Unit] = (),
        most: float = np.inf,
    ) -> list[Path]:
        """Feeds one token to each of `rows`, by default all, and reads `units` of prompts in the same pass.

        The units' paths come back, cached and pinned: unpin them once who waits for them has joined. What each has
        before it must be cached, and pinned. Raises UsageError for a row that has left, is dropped or repeated, a count
        that differs, or a row whose context is full.
        """
        chosen = np.flatnonzero(self.live) if rows is None else np.asarray(rows, np.int64)
        if len(chosen) != len(tokens) or len(set(chosen.tolist())) != len(chosen) or not self.live[chosen].all():
            raise UsageError(f"append(tokens, rows) takes one token a live row; got {len(tokens)}, {len(chosen)}.")
        context = self.engine.config.context
        if max((len(self.tokens[row]) for row in chosen.tolist()), default=0) >= context:
            raise UsageError(f"The context of {context} tokens is full; leave() with rows that reach it.")
        packed = Packed(self.engine, units) if units else None
        if not len(chosen):
            return [] if packed is None else packed.keep(self._pass(None, packed)[1])
        feed = self.slots.feed(chosen.tolist(), self.engine.config, most)
        states, rest = self._pass((feed, laid_in(feed, tokens)), packed)
        self.slots.fed(chosen.tolist())
        hidden = states if feed.at is None else states[torch.from_numpy(feed.at)]
        self.hidden.index_copy_(0, torch.from_numpy(chosen), hidden)
        for row, token, state in zip(chosen.tolist(), tokens, hidden, strict=True):
            self.tokens[row].append(int(token))
            self.trace[row].append(state)
            self.origin[row] = next(self.fresh)
        return [] if packed is None else packed.keep(rest)

    def _pass(self, fed: tuple[Feed, Tensor] | None, packed: Packed | None) -> tuple[Tensor, Tensor]:
        """Hidden states of the tokens that rows are fed, and of what is packed beside them."""
        run, nothing = self.engine.run, self.hidden[:0]
        if fed is None:
            assert packed is not None
            return nothing, run(packed.tokens, packed.positions, packed.attend())[0]
        (_, positions, attend), tokens = fed
        n = len(tokens)
        if packed is None:
            return run(tokens[:, None], positions[:, None], attend)[:, 0], nothing
        tokens, positions = (
            torch.cat([tokens[None], packed.tokens], 1),
            torch.cat([positions[None], packed.positions], 1),
        )
        hidden = run(tokens, positions, beside(n, attend, packed.attend()))[0]
        return hidden[:n], hidden[n:]

    def look(self, trees: Mapping[int, Tree]) -> dict[int, Tensor]:
        raise Unsupported("Trees are looked at in a session of fixed rows: engine.open(engine.plan(sequences)).")

    @torch.inference_mode()
    def leave(self, rows: Sequence[int], keep: bool = True) -> None:
        """These rows are gone; with `keep`, what is their own goes to the cache, where it is found while it lasts."""
        cache, written = self.engine.cache, []
        for row in rows:
            if keep and self.trace[row]:
                tokens: Tokens = tuple(self.tokens[row])
                keys = self.slots.own_keys(row)
                self.engine.counters.copied_own_bytes += keys.nbytes
                cache.insert(tokens, len(tokens) - len(self.trace[row]), keys, torch.stack(self.trace[row]))
                written.append(tokens)
            cache.unpin(self.paths[row])
            self.paths[row], self.tokens[row], self.trace[row], self.live[row] = (), [], [], False
            if cache.bytes > cache.limit:  # one by one, so that rows and what they leave are never held twice over
                cache.trim()
        self.slots.leave(rows)
        for tokens in written:
            cache.sweep(tokens)
        cache.trim()

    @torch.inference_mode()
    def close(self, keep: bool = True) -> None:
        """All rows leave."""
        self.leave(list(self.slots.at), keep)


def laid_in(feed: Feed, tokens: Sequence[int]) -> Tensor:
    """The tokens of a pass: those that rows are fed, each in its place, and anything in the places between."""
    fed = torch.tensor(tokens)
    if feed.at is None:
        return fed
    return torch.zeros(len(feed.positions), dtype=torch.int64).index_copy_(0, torch.from_numpy(feed.at), fed)


def beside(n: int, one: Attend, other: Attend) -> Attend:
    """A pass (1, n + more) whose first n positions are a row each, under `one`, and whose others are under `other`."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = (x[:, :, :n].transpose(0, 2) for x in (q, k, v))
        rest = (x[:, :, n:] for x in (q, k, v))
        return torch.cat([one(layer, *rows).transpose(0, 2), other(layer, *rest)], 2)

    return attend
