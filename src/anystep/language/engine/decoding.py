"""Rows being continued, by a token or a tree of them a row and pass, over a shared past that is never copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.attention import add_levels, look_own
from anystep.language.engine.cache import Path, Tokens
from anystep.language.engine.llama import Attend, Config
from anystep.language.engine.native.attention import attends, by_lists
from anystep.language.engine.plan import Plan
from anystep.language.engine.rows import Rows
from anystep.language.engine.trees import Begun, Looked, Tree, begin, keep_path, look_ahead

if TYPE_CHECKING:
    from anystep.language.engine.engine import Engine

ROOM = 32  # positions of a row's own that are reserved at first


class Decoding:
    """`len(session)` rows; `hidden` (rows, dim) is each row's last hidden state, `tokens[row]` what it has been fed.

    Leaving the `with` block, or `close()`, writes each row's own keys back to the cache and gives the pins back.
    """

    def __init__(self, engine: Engine, plan: Plan, paths: list[Path]) -> None:
        self.engine, self.plan, self.paths = engine, plan, paths
        self.tokens: list[list[int]] = [list(tokens) for tokens in plan.sequences]
        self.hidden = torch.stack([path[-1].segment.hidden[path[-1].length - 1] for path in paths])
        origin = {tokens: row for row, tokens in reversed(list(enumerate(plan.sequences)))}
        self.origin = np.array([origin[tokens] for tokens in plan.sequences])  # rows that are still one
        self.live = np.ones(len(paths), bool)
        self.slot = np.arange(len(paths))  # of each row
        self.row = np.arange(len(paths))  # of each slot
        self.rows: Rows | None = None  # made by the first append: looking at logits copies nothing
        self.trace: list[list[Tensor]] = [[] for _ in paths]  # hidden states of appended tokens
        self.looked: dict[int, Looked] = {}  # since the last append
        self.begun: dict[int, Begun] = {}  # since the last append or look

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def bytes(self) -> int:
        """Bytes held for what rows have of their own: keys, values and hidden states that the cache has not yet."""
        states = sum(len(trace) for trace in self.trace) * self.hidden[:1].nbytes
        return states + (0 if self.rows is None else self.rows.buffer.nbytes)

    @torch.inference_mode()
    def logits(self, rows: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """(len(rows), vocab): next-token logits of `rows`, by default of all; rows that are still equal cost one."""
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        origins = self.origin[chosen].tolist()
        if len(set(origins)) == len(origins):
            return self.engine.model.logits(self.hidden.index_select(0, torch.from_numpy(chosen)))
        _, first, back = np.unique(origins, return_index=True, return_inverse=True)
        hidden = self.hidden[torch.from_numpy(chosen[first])]
        return self.engine.model.logits(hidden)[torch.from_numpy(back)]

    def states(self, row: int) -> Tensor:
        """(length, dim): the last layer's hidden state at every position of `row`."""
        cached = [span.segment.hidden[: span.length] for span in self.paths[row]]
        return torch.cat([*cached, torch.stack(self.trace[row])] if self.trace[row] else cached)

    @torch.inference_mode()
    def append(self, tokens: Sequence[int], rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Feeds one token to each of `rows` (by default every live one) in one pass.

        Raises UsageError for a dropped or repeated row, a count that differs, or a row whose context is full.
        """
        chosen = np.flatnonzero(self.live) if rows is None else np.asarray(rows, np.int64)
        if len(chosen) != len(tokens) or len(np.unique(chosen)) != len(chosen) or not self.live[chosen].all():
            raise UsageError(
                f"append(tokens, rows) takes one token for each live row; got {len(tokens)}, {len(chosen)}."
            )
        if not len(chosen):
            return
        if max(len(self.tokens[row]) for row in chosen) >= self.engine.config.context:
            raise UsageError(f"The context of {self.engine.config.context} tokens is full; drop() rows that reach it.")
        laid = self.prepared(chosen)
        self.begun, laid.ahead = {}, 0
        laid.make_room()
        order = np.argsort(self.slot[chosen])
        chosen, fed = chosen[order], torch.as_tensor(tokens)[torch.from_numpy(order)]
        positions = torch.from_numpy(laid.lengths[: len(chosen)].copy())
        hidden = self.engine.run(fed[:, None], positions[:, None], one_each(laid, len(chosen), self.engine.config))[
            :, 0
        ]
        laid.own[: len(chosen)] += 1
        self.hidden[torch.from_numpy(chosen)] = hidden
        for row, token, state in zip(chosen.tolist(), fed.tolist(), hidden, strict=True):
            self.tokens[row].append(token)
            self.trace[row].append(state)
            self.origin[row] = len(self) + row

    @torch.inference_mode()
    def look(self, trees: Mapping[int, Tree]) -> dict[int, Tensor]:
        """Shows each row a tree of tokens it may go on with: one pass, and each node's hidden state (nodes, dim).

        No row has moved: `keep` says how it goes on. An `append` or another look forgets what was looked at.
        Raises UsageError for a dropped row, an empty tree, or one that does not fit the context.
        """
        self.looked = {}
        if not all(0 <= row < len(self) and self.live[row] and len(tree) for row, tree in trees.items()):
            raise UsageError("look({row: tree}) takes a tree of at least one node for each of some live rows.")
        if trees:
            self.looked = look_ahead(self, trees)
        self.begun = {}
        return {row: looked.hidden for row, looked in self.looked.items()}

    @torch.inference_mode()
    def begin(self, tokens: Mapping[int, int], layers: int) -> dict[int, Tensor]:
        """Shows the first `layers` layers of the model one more token of each row, behind those it began since the last
        append or look: what comes out of them (dim,), before the final norm. A look at a tree that is the beginning of
        such a chain, for rows that all have one, goes through the other layers only.

        Raises UsageError for a dropped row, layers that the model has not, or chains of different lengths.
        """
        if not 0 < layers < self.engine.config.layers or not all(
            0 <= row < len(self) and self.live[row] for row in tokens
        ):
            most = self.engine.config.layers - 1
            raise UsageError(f"begin({{row: token}}, layers) takes live rows and 1 to {most} layers; got {layers}.")
        found = begin(self, tokens, layers) if tokens else {}
        self.begun |= found
        return {row: each.states[-1] for row, each in found.items()}

    def begun_layers(self, trees: Mapping[int, Tree]) -> int:
        """How many layers a look at `trees` can leave out."""
        begun = [(self.begun.get(row), tree) for row, tree in trees.items()]
        if not all(
            each is not None and each.tokens[: len(tree)] == tree.tokens and tree == Tree.chain(tree.tokens)
            for each, tree in begun
        ):
            return 0
        depths = {each.layers for each, _ in begun if each is not None}
        return depths.pop() if len(depths) == 1 else 0

    @torch.inference_mode()
    def keep(self, paths: Mapping[int, Sequence[int]]) -> None:
        """Rows go on by these nodes of the trees they were shown, from a root down; what else was shown is forgotten.

        Raises UsageError for a row that was shown nothing since, or nodes that are no such path.
        """
        looked, self.looked = self.looked, {}
        if not paths.keys() <= looked.keys():
            raise UsageError("keep({row: path}) comes after look({row: tree}), once, for rows that it showed a tree.")
        for row, path in paths.items():
            keep_path(self, row, looked[row], path)

    @torch.inference_mode()
    def rewind(self, lengths: Mapping[int, int]) -> None:
        """Rows go back to their first so many tokens, none to before the session began.

        Raises UsageError for a length that a row has not, or had before.
        """
        for row, length in lengths.items():
            back, first = len(self.tokens[row]) - length, len(self.plan.sequences[row])
            if not 0 <= back <= len(self.trace[row]):
                raise UsageError(
                    f"rewind({{{row}: length}}) goes back to {first}..{len(self.tokens[row])}; got {length}."
                )
            if back and self.rows is not None:
                self.rows.own[self.slot[row]] -= back
                del self.tokens[row][length:], self.trace[row][length - first :]
                path = self.paths[row][-1]
                own = self.trace[row]
                self.hidden[row] = own[-1] if own else path.segment.hidden[path.length - 1]
                self.origin[row] = len(self) + row
        self.looked, self.begun = {}, {}

    def prepared(self, chosen: Sequence[int] | np.ndarray) -> Rows:
        """The rows' keys laid out, those of `chosen` in the first slots."""
        if self.rows is None:
            self.rows = Rows(self.paths, self.engine.like, ROOM, self.engine.counters)
            self.copied = self.rows.own.copy()  # by slot: how much of the buffer came from the cache
        self.looked = {}
        self._to_front(np.asarray(chosen, np.int64))
        return self.rows

    def _to_front(self, chosen: np.ndarray) -> None:
        """Moves the chosen rows into the first slots, with as few moves as that takes."""
        assert self.rows is not None
        n = len(chosen)
        slots = self.slot[chosen]
        movers = slots[slots >= n]
        holes = np.setdiff1d(np.arange(n), slots)
        self.rows.exchange(holes, movers)
        both, other = np.concatenate([holes, movers]), np.concatenate([movers, holes])
        self.row[both], self.copied[both] = self.row[other], self.copied[other]
        self.slot[self.row[both]] = both

    def drop(self, rows: Sequence[int] | np.ndarray) -> None:
        """These rows take no more tokens; what they have is kept until `close`."""
        self.live[np.asarray(rows, dtype=np.int64)] = False

    @torch.inference_mode()
    def close(self, keep: bool = True) -> None:
        """Gives the pins back; with `keep`, each row's own keys go to the cache, where the next session finds them."""
        if not self.paths:
            return
        cache = self.engine.cache
        written: list[Tokens] = []
        for row, own in enumerate(self.trace if keep else ()):
            if own and self.rows is not None:
                slot = self.slot[row]
                keys = self.rows.buffer[:, :, slot, :, self.copied[slot] : self.rows.own[slot]].clone()
                self.engine.counters.copied_own_bytes += keys.nbytes
                tokens: Tokens = tuple(self.tokens[row])
                cache.insert(tokens, len(tokens) - len(own), keys, torch.stack(own))
                written.append(tokens)
        for path in self.paths:
            cache.unpin(path)
        for tokens in written:
            cache.sweep(tokens)
        cache.trim()
        self.paths, self.live[:], self.rows = [], False, None

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def one_each(rows: Rows, n: int, config: Config) -> Attend:
    """One query for each of the first n slots, over its own keys and those it shares."""
    if attends(rows.buffer):
        seen = [(rows.stretches(slot), (rows.kept(slot), int(rows.own[slot]))) for slot in range(n)]
        return by_lists(config, seen)
    none = torch.zeros(n, 1, dtype=torch.int64)
    views = {
        size: (rows.levels(n) if size is None else rows.near(n, size, none), *rows.mask(n, size))
        for size in config.sizes
    }
    here, at = torch.arange(n), torch.from_numpy(rows.own[:n].copy())

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        levels, low, mask = views[config.window(layer)]
        own = rows.buffer[layer]
        own[0, here, :, at], own[1, here, :, at] = k[:, :, 0], v[:, :, 0]
        seen = own[:, :n, :, low : low + mask.shape[1]]
        return add_levels(levels, layer, q, look_own(q, seen[0], seen[1], mask))

    return attend
