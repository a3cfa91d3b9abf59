"""Stretches of several sequences in one pass, packed without padding: how prompts are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anystep.language.engine.attention import add_levels, look_back, look_past, merge
from anystep.language.engine.cache import Path, cut
from anystep.language.engine.llama import Attend
from anystep.language.engine.native.attention import Stretch, attends, by_lists
from anystep.language.engine.plan import Unit
from anystep.language.engine.rows import Rows

if TYPE_CHECKING:
    from anystep.language.engine.engine import Engine


class Packed:
    """`units` side by side; what each has before it must be cached, and pinned.

    `tokens` and `positions` (1, count) go into a pass under `attend()`, alone or behind others, and `keep` takes the
    hidden states that come out.
    """

    def __init__(self, engine: Engine, units: Sequence[Unit]) -> None:
        self.engine, self.units = engine, units
        cache, like = engine.cache, engine.like
        self.longest = max(unit.length for unit in units)
        self.tokens = torch.tensor([[token for unit in units for token in unit.tokens[unit.start :]]])
        self.positions = torch.cat([torch.arange(unit.start, len(unit.tokens)) for unit in units])[None]
        self.rows = Rows([cut(cache.match(u.tokens), u.start) for u in units], like, 0, engine.counters)
        layers, two, kv_heads, _, width = like.shape
        self.stash = like.new_zeros(layers, two, len(units), kv_heads, self.longest, width)

    def __len__(self) -> int:
        return self.tokens.shape[1]

    def attend(self) -> Attend:
        """Each stretch sees its own past in `rows` and itself causally; its keys go to `stash`."""
        rows, stash, n, longest = self.rows, self.stash, len(self.units), self.longest
        if attends(stash):
            return by_lists(self.engine.config, list(self._lists()))
        slots = torch.cat([i * longest + torch.arange(unit.length) for i, unit in enumerate(self.units)])
        config = self.engine.config
        groups, window = config.heads // config.kv_heads, config.window
        ahead = torch.arange(longest).expand(n, longest)
        views = {
            size: (rows.levels(n) if size is None else rows.near(n, size, ahead), *rows.past(n, size, longest))
            for size in config.sizes
        }

        def spread(x: Tensor) -> Tensor:
            """(1, heads, positions, d) -> (n, heads, longest, d), zero where a stretch is shorter."""
            padded = x.new_zeros(n * longest, x.shape[1], x.shape[3])
            padded[slots] = x[0].transpose(0, 1)
            return padded.view(n, longest, *padded.shape[1:]).transpose(1, 2)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = spread(q), spread(k), spread(v)
            stash[layer, 0], stash[layer, 1] = k, v
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
            part = look_back(q, k, v, window(layer))
            levels, low, sight = views[window(layer)]
            if sight is not None:
                past = rows.buffer[layer, :, :, :, low : low + sight.mask.shape[2]].repeat_interleave(groups, 2)
                part = merge(part, look_past(q, past[0], past[1], sight))
            out = add_levels(levels, layer, q, part)
            return out.transpose(1, 2).reshape(n * longest, q.shape[1], -1)[slots].transpose(0, 1)[None]

        return attend

    def _lists(self) -> Iterator[tuple[list[Stretch], tuple[Tensor, int]]]:
        """What each position sees before itself, and where its own key goes."""
        for slot, unit in enumerate(self.units):
            before, mine = self.rows.stretches(slot), self.stash[:, :, slot]
            for at in range(unit.length):
                yield [*before, (mine, 0, at)], (mine, at)

    def keep(self, hidden: Tensor) -> list[Path]:
        """Each unit's path, cached and pinned, given the hidden states (count, dim) of its stretch and all others."""
        self.engine.counters.prefilled += len(self)
        paths = []
        for i, (unit, states) in enumerate(zip(self.units, hidden.split([u.length for u in self.units]), strict=True)):
            keys = self.stash[:, :, i, :, : unit.length].clone()
            paths.append(self.engine.cache.insert(unit.tokens, unit.start, keys, states.clone()))
            self.engine.cache.pin(paths[-1])
        return paths
