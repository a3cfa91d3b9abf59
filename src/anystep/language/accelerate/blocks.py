"""Blocks of keys that several workers see in different orders, none of them moved or copied.

A key is kept at its place inside its own block, counted from 0. Where a worker sees the block begin later, its query is
turned back by that much instead: rotary scores depend on the difference of two positions alone, so this equals turning
every key forward, at one rotation a block. Each block is looked at apart and the parts are merged by log-sum-exp.
Source: Rodionov et al., "Hogwild! Inference: Parallel LLM Generation via Concurrent Attention" (2025), arXiv
2504.06261.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anystep.language.engine.attention import Sight, look
from anystep.language.engine.llama import Attend, Config, Rotary, rotate

ROOM = 32  # positions that a block has at first


class Blocks:
    """A common past, then a block for each worker. Worker w sees the common past, the others' blocks in their order,
    and its own last; with `shared=False` it sees no other's."""

    def __init__(self, config: Config, common: Tensor, workers: int, shared: bool = True) -> None:
        """common: (layers, 2, kv_heads, length, head_dim), keys rotated for positions from 0, then values."""
        self.config, self.shared = config, shared
        self.far = Rotary(config.head_dim, config.rope_theta, config.rope_factors).to(common.device)
        near = config.near_theta
        self.near = self.far if near is None else Rotary(config.head_dim, near).to(common.device)
        self.common, self.length = common, common.shape[3]
        layers, two, heads, _, width = common.shape
        self.own = common.new_zeros(layers, two, workers, heads, ROOM, width)
        self.sizes = [0] * workers

    @property
    def bytes(self) -> int:
        return self.common.nbytes + self.own.nbytes

    def copy(self) -> Blocks:
        """The same keys again, to be continued apart; the common past is shared until a block joins it."""
        other = copy.copy(self)
        other.own, other.sizes = self.own.clone(), list(self.sizes)
        return other

    def order(self, worker: int) -> list[int]:
        """The blocks that a worker sees after the common past."""
        others = [w for w in range(len(self.sizes)) if w != worker] if self.shared else []
        return [*others, worker]

    def seen(self, worker: int) -> int:
        """How many positions a worker sees."""
        return self.length + sum(self.sizes[block] for block in self.order(worker))

    def offset(self, worker: int, block: int) -> int:
        """Where `block` begins in the worker's view."""
        order = self.order(worker)
        return self.length + sum(self.sizes[b] for b in order[: order.index(block)])

    def write(self, workers: Sequence[int]) -> Attend:
        """Takes one more key of each of `workers` and gives the attention of their queries, in a pass whose positions
        are all 0: what it hands over is then not rotated yet."""
        if max(self.sizes) == self.own.shape[4]:
            self.own = torch.cat([self.own, torch.zeros_like(self.own)], 4)
        at = [self.sizes[w] for w in workers]
        for worker in workers:
            self.sizes[worker] += 1
        turns = {rotary: self._turn(workers, at, rotary) for rotary in (self.far, self.near)}
        sights = {size: self._sights(workers, size) for size in self.config.sizes}
        newest, longest = list(zip(workers, at, strict=True)), max(self.sizes)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            turn, sight = turns[self.rotary(layer)], sights[self.config.window(layer)]
            own, common = self.own[layer], self.common[layer, :, None]
            turned = turn.apply(k[:, :, 0], turn.keys)
            for i, (worker, place) in enumerate(newest):
                own[0, worker, :, place], own[1, worker, :, place] = turned[i], v[i, :, 0]
            queries = turn.apply(q[:, :, 0].transpose(0, 1), turn.queries)  # (1 + blocks, heads, workers, width)
            parts = [
                _look(queries[:1], common[0, :, :, : self.length], common[1, :, :, : self.length], sight[0]),
                _look(queries[1:], own[0, :, :, :longest], own[1, :, :, :longest], sight[1]),
            ]
            share = torch.cat([norm for _, norm in parts]).softmax(0)
            return (share[..., None] * torch.cat([out for out, _ in parts])).sum(0).transpose(0, 1)[:, :, None]

        return attend

    def rotary(self, layer: int) -> Rotary:
        """The rotation of a layer's keys."""
        return self.far if self.config.window(layer) is None else self.near

    def _shifts(self, workers: Sequence[int]) -> Tensor:
        """(1 + blocks, workers): how far each worker's newest position is from the beginning of the common past and of
        each block; 0 for what it does not see."""
        rows = [[self.seen(w) - 1 for w in workers]]
        for block in range(len(self.sizes)):
            seen = [block in self.order(w) for w in workers]
            rows.append(
                [self.seen(w) - 1 - self.offset(w, block) if yes else 0 for w, yes in zip(workers, seen, strict=True)]
            )
        return torch.tensor(rows)

    def _turn(self, workers: Sequence[int], at: Sequence[int], rotary: Rotary) -> Turn:
        device = self.own.device
        queries, keys = rotary(self._shifts(workers).to(device)), rotary(torch.tensor(at, device=device)[:, None])
        return Turn(queries, (keys[0][:, :, 0], keys[1][:, :, 0]))

    def _sights(self, workers: Sequence[int], window: int | None) -> tuple[Sight | None, Sight | None]:
        """Which keys of the common past, and of each block, each worker's query sees."""
        shifts, sizes = self._shifts(workers), torch.tensor(self.sizes)
        place = torch.arange(max(self.sizes))
        visible = torch.tensor([[block in self.order(w) for w in workers] for block in range(len(self.sizes))])
        inside = (place < sizes[:, None, None]) & visible[..., None]
        if window is None:
            return None, None if inside.all() else Sight.of(inside.to(self.own.device))
        inside &= shifts[1:, :, None] - place < window
        past = shifts[:1, :, None] - torch.arange(self.length) < window
        return Sight.of(past.to(self.own.device)), Sight.of(inside.to(self.own.device))

    def join(self, worker: int) -> None:
        """Moves the worker's block to the end of the common past: its keys are turned on by a constant, and nothing is
        computed anew."""
        size = self.sizes[worker]
        moved = self.own[:, :, worker, :, :size].clone()
        for layer in range(self.config.layers):
            moved[layer, 0] = self._turned(moved[layer, 0], layer, self.length)
        self.common = torch.cat([self.common[:, :, :, : self.length], moved], 3)
        self.length += size
        self.sizes[worker] = 0

    def laid(self, worker: int, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (kv_heads, positions, head_dim) as this worker sees them, every key rotated to its position
        in the view: what looking block by block is checked against."""
        keys, values = [self.common[layer, 0, :, : self.length]], [self.common[layer, 1, :, : self.length]]
        for block in self.order(worker):
            own = self.own[layer, :, block, :, : self.sizes[block]]
            keys.append(self._turned(own[0], layer, self.offset(worker, block)))
            values.append(own[1])
        return torch.cat(keys, 1), torch.cat(values, 1)

    def _turned(self, keys: Tensor, layer: int, by: int) -> Tensor:
        cos, sin = self.rotary(layer)(torch.tensor([[by]], device=keys.device))
        return rotate(keys, cos[0], sin[0])


@dataclass(frozen=True)
class Turn:
    """Cosines and sines of a pass: queries' (1 + blocks, 1, workers, width), keys' (workers, 1, width)."""

    queries: tuple[Tensor, Tensor]
    keys: tuple[Tensor, Tensor]

    @staticmethod
    def apply(x: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
        """`rotate`, for x (heads, workers, width) by all of `by` at once."""
        left, right = x.chunk(2, -1)
        return torch.addcmul(x * by[0], torch.cat([-right, left], -1), by[1])


def _look(q: Tensor, k: Tensor, v: Tensor, sight: Sight | None) -> tuple[Tensor, Tensor]:
    """q (blocks, heads, workers, width) over each block's k, v (blocks, kv_heads, places, width); with log-sum-exp."""
    blocks, heads, workers, width = q.shape
    group = heads // k.shape[1]
    mask = None if sight is None else sight.mask[:, None].repeat(1, 1, group, 1)
    out, norm = look(q.reshape(blocks, k.shape[1], group * workers, width), k, v, mask)
    norm = norm.reshape(blocks, heads, workers)
    if sight is not None:
        norm = norm.masked_fill(sight.blind[:, None], -torch.inf)
    return out.reshape(blocks, heads, workers, width), norm
