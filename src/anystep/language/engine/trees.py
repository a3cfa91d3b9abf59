"""Trees of tokens that rows may go on with: all their nodes fed in one pass, then one path of each kept.

A node sees its row's past and its own ancestors, at the position that its depth gives it, so its hidden state is what
appending its path token by token would have made. This is the masked pass of Miao et al., "SpecInfer" (2024), over
rows that share their prompts. Exact up to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.attention import add_levels, look
from anystep.language.engine.llama import Attend
from anystep.language.engine.native.attention import attends, by_lists
from anystep.language.engine.rows import Rows

if TYPE_CHECKING:
    from anystep.language.engine.decoding import Decoding


@dataclass(frozen=True)
class Tree:
    """Node i is `tokens[i]`, the child of node `parents[i]` < i; a parent of -1 hangs it on what its row has been fed.

    Raises UsageError for parents that do not come before their children.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.parents) or any(not -1 <= p < i for i, p in enumerate(self.parents)):
            raise UsageError(
                f"Tree(tokens, parents) has one parent before each node, as in {EXAMPLE}; got {self!r:.80}"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def chain(cls, tokens: Iterable[int]) -> Tree:
        """One branch."""
        tokens = tuple(tokens)
        return cls(tokens, tuple(range(-1, len(tokens) - 1)))

    @classmethod
    def of(cls, branches: Iterable[Sequence[int]]) -> Tree:
        """All branches, with the beginnings that they share held once; nodes in order of their first branch."""
        nodes: dict[tuple[int, int], int] = {}
        for branch in branches:
            at = -1
            for token in branch:
                at = nodes.setdefault((at, token), len(nodes))
        return cls(tuple(token for _, token in nodes), tuple(parent for parent, _ in nodes))

    def under(self, token: int) -> Tree:
        """This tree as what may follow `token`, which becomes node 0."""
        return Tree((token, *self.tokens), (-1, *(parent + 1 for parent in self.parents)))

    def first(self, count: int) -> Tree:
        """The first `count` nodes: parents come before children, so they are a tree."""
        return Tree(self.tokens[:count], self.parents[:count])

    @property
    def depths(self) -> NDArray[np.int64]:
        """(nodes,) ancestors of each node."""
        depths = np.zeros(len(self), np.int64)
        for i, parent in enumerate(self.parents):
            depths[i] = 0 if parent < 0 else depths[parent] + 1
        return depths

    @property
    def lineage(self) -> NDArray[np.bool_]:
        """(nodes, nodes): True at [i, j] where j is i or one of its ancestors."""
        seen = np.eye(len(self), dtype=bool)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                seen[i] |= seen[parent]
        return seen

    def children(self, node: int = -1) -> list[int]:
        """The nodes that hang on `node`, or on the row itself (-1), in order."""
        return [i for i, parent in enumerate(self.parents) if parent == node]

    def path(self, node: int) -> list[int]:
        """The nodes from the root down to `node`."""
        found = []
        while node >= 0:
            found.append(node)
            node = self.parents[node]
        return found[::-1]


EXAMPLE = "Tree((5, 6, 7), (-1, 0, 0))"


@dataclass(frozen=True)
class Looked:
    """What a row has been shown and not yet kept: the tree, its nodes' hidden states, and the row's length then."""

    tree: Tree
    hidden: Tensor
    length: int


@dataclass(frozen=True)
class Begun:
    """A chain that a row was shown to its first `layers` layers: tokens, and what came out of them, (nodes, dim)."""

    tokens: tuple[int, ...]
    states: Tensor
    layers: int


def look_ahead(session: Decoding, trees: Mapping[int, Tree]) -> dict[int, Looked]:
    """One pass over the nodes of all `trees`, their keys written behind each row's own; where all of them have begun,
    through the layers that are left."""
    start = session.begun_layers(trees)
    laid = _lay_out(session, trees)
    if start:
        x = torch.cat([session.begun[row].states[: len(trees[row])] for row in laid.rows])
        hidden = session.engine.part(x[None], laid.positions, laid.attend, start, None)[0]
    else:
        tokens = torch.tensor([[token for row in laid.rows for token in trees[row].tokens]])
        hidden = session.engine.run(tokens, laid.positions, laid.attend)[0]
    parts = hidden.split([len(trees[row]) for row in laid.rows])
    return {
        row: Looked(trees[row], states, len(session.tokens[row])) for row, states in zip(laid.rows, parts, strict=True)
    }


def begin(session: Decoding, tokens: Mapping[int, int], layers: int) -> dict[int, Begun]:
    """One pass through the first `layers` layers: each row's begun chain with one more token."""
    none = torch.empty(0, session.engine.config.dim, device=session.engine.like.device)
    before = {row: session.begun.get(row, Begun((), none, layers)) for row in tokens}
    sizes = {len(each.tokens) for each in before.values()}
    if len(sizes) > 1 or any(each.layers != layers for each in before.values()):
        raise UsageError("begin(tokens, layers) goes on with chains of one length, begun to as many layers.")
    (size,) = sizes
    laid = _lay_out(session, {row: Tree.chain((*before[row].tokens, token)) for row, token in tokens.items()}, size)
    fed = torch.tensor([[tokens[row] for row in laid.rows]])
    states = session.engine.part(fed, laid.positions, laid.attend, 0, layers)[0]
    return {
        row: Begun((*before[row].tokens, tokens[row]), torch.cat([before[row].states, state[None]]), layers)
        for row, state in zip(laid.rows, states, strict=True)
    }


@dataclass(frozen=True)
class Laid:
    """Trees laid out for a pass: their rows in the order of the slots, each node's position, and what it attends to."""

    rows: list[int]
    positions: Tensor
    attend: Attend


def _lay_out(session: Decoding, trees: Mapping[int, Tree], since: int = 0) -> Laid:
    """For the nodes from `since` on; the keys of those before are written already."""
    rows, context = session.prepared(list(trees)), session.engine.config.context
    chosen = sorted(trees, key=lambda row: session.slot[row])
    laid = [trees[row] for row in chosen]
    for row, tree in trees.items():
        if len(session.tokens[row]) + int(tree.depths.max()) >= context:
            raise UsageError(f"A tree of {int(tree.depths.max()) + 1} levels does not fit the context of {context}.")
    longest = max(map(len, laid))
    rows.make_room(longest)
    rows.ahead = longest
    depths = np.zeros((len(laid), longest), np.int64)
    for i, tree in enumerate(laid):
        depths[i, : len(tree)] = tree.depths
    asked = longest - since
    slots = np.concatenate([i * asked + np.arange(len(tree) - since) for i, tree in enumerate(laid)])
    positions = (rows.lengths[: len(laid), None] + depths[:, since:]).reshape(-1)[slots]
    attend = _attend(session, laid, torch.from_numpy(depths), torch.from_numpy(slots), since)
    return Laid(chosen, torch.from_numpy(positions)[None], attend)


def _attend(session: Decoding, trees: Sequence[Tree], depths: Tensor, slots: Tensor, since: int) -> Attend:
    """Queries of one tree a slot, from node `since` on, over what the slot has, and over their own ancestors. Their
    keys are written."""
    rows, config = session.rows, session.engine.config
    assert rows is not None
    if attends(rows.buffer):
        return by_lists(config, list(_lists(rows, trees, since)))
    n, longest, asked = *depths.shape, depths.shape[1] - since
    groups, whole = config.heads // config.kv_heads, len(slots) == n * asked
    family = torch.eye(longest, dtype=torch.bool).repeat(n, 1, 1)  # what is only padding sees itself
    for i, tree in enumerate(trees):
        family[i, : len(tree), : len(tree)] = torch.from_numpy(tree.lineage)
    views = {}
    for size in config.sizes:
        low, mask = rows.beside(n, size, depths, family)
        levels = rows.levels(n) if size is None else rows.near(n, size, depths[:, since:])
        views[size] = levels, low, mask[:, since:]
    device = rows.buffer.device
    here, at = torch.arange(n)[:, None], torch.from_numpy(rows.own[:n, None]) + torch.arange(since, longest)
    slots = slots.to(device)

    def spread(x: Tensor) -> Tensor:
        """(1, heads, nodes, d) -> (n, heads, asked, d), zero where a tree is smaller."""
        if whole:
            return x[0].unflatten(1, (n, asked)).transpose(0, 1)
        padded = x.new_zeros(n * asked, x.shape[1], x.shape[3])
        padded[slots] = x[0].transpose(0, 1)
        return padded.view(n, asked, *padded.shape[1:]).transpose(1, 2)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        levels, low, mask = views[config.window(layer)]
        q, own = spread(q), rows.buffer[layer]
        own[0, here, :, at], own[1, here, :, at] = spread(k).transpose(1, 2), spread(v).transpose(1, 2)
        keys, values = own[:, :n, :, low : low + mask.shape[2]]
        packed = q.reshape(n, config.kv_heads, groups * asked, -1)  # queries of a group side by side
        seen, norm = look(packed, keys, values, mask[:, None].repeat(1, 1, groups, 1))
        out = add_levels(levels, layer, q, (seen.reshape(q.shape), norm.reshape(q.shape[:3])))
        flat = out.transpose(0, 1).reshape(1, q.shape[1], n * asked, -1)
        return flat if whole else flat[:, :, slots]

    return attend


def _lists(
    rows: Rows, trees: Sequence[Tree], since: int
) -> Iterator[tuple[list[tuple[Tensor, int, int]], tuple[Tensor, int]]]:
    """What each node from `since` on sees before itself, and where its own key goes."""
    for slot, tree in enumerate(trees):
        before, mine, end = rows.stretches(slot), rows.kept(slot), int(rows.own[slot])
        for node in range(since, len(tree)):
            runs: list[tuple[int, int]] = []
            for at in tree.path(node)[:-1]:
                if runs and sum(runs[-1]) == at:
                    runs[-1] = runs[-1][0], runs[-1][1] + 1
                else:
                    runs.append((at, 1))
            yield [*before, *((mine, end + first, count) for first, count in runs)], (mine, end + node)


def keep_path(session: Decoding, row: int, looked: Looked, path: Sequence[int]) -> None:
    """Makes `path` of what was looked at part of the row: its keys side by side behind the row's own."""
    parents = [looked.tree.parents[node] if 0 <= node < len(looked.tree) else None for node in path]
    if parents != [-1, *path][: len(path)]:
        raise UsageError(f"keep({{row: path}}) takes nodes from a root down, each the child of the last; got {path}.")
    if not path:
        return
    rows, slot = session.rows, int(session.slot[row])
    assert rows is not None
    start, nodes = int(rows.own[slot]), torch.tensor(path)
    if list(path) != list(range(len(path))):
        kept = rows.buffer[:, :, slot, :, start + nodes]
        rows.buffer[:, :, slot, :, start : start + len(path)] = kept
        rows.counters.copied_own_bytes += kept.nbytes
    rows.own[slot] += len(path)
    states = looked.hidden[nodes]
    session.hidden[row] = states[-1]
    session.tokens[row].extend(looked.tree.tokens[node] for node in path)
    session.trace[row].extend(states)
    session.origin[row] = len(session) + row
