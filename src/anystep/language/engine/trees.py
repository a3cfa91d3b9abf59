"""Trees of tokens that rows may go on with: all their nodes fed in one pass, then one path of each kept.

A node sees its row's past and its own ancestors, at the position that its depth gives it, so its hidden state is what
appending its path token by token would have made. This is the masked pass of Miao et al., "SpecInfer" (2024), over
rows that share their prompts. Exact up to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.attention import add_levels, look
from anystep.language.engine.llama import Attend

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


def look_ahead(session: Decoding, trees: Mapping[int, Tree]) -> dict[int, Looked]:
    """One pass over the nodes of all `trees`, their keys written behind each row's own."""
    rows, context = session.prepared(list(trees)), session.engine.config.context
    chosen = np.array(sorted(trees, key=lambda row: session.slot[row]), np.int64)
    laid = [trees[row] for row in chosen.tolist()]
    for row, tree in trees.items():
        if len(session.tokens[row]) + int(tree.depths.max()) >= context:
            raise UsageError(f"A tree of {int(tree.depths.max()) + 1} levels does not fit the context of {context}.")
    longest = max(map(len, laid))
    rows.make_room(longest)
    depths = np.zeros((len(laid), longest), np.int64)
    for i, tree in enumerate(laid):
        depths[i, : len(tree)] = tree.depths
    slots = np.concatenate([i * longest + np.arange(len(tree)) for i, tree in enumerate(laid)])
    positions = (rows.lengths[: len(laid), None] + depths).reshape(-1)[slots]
    tokens = torch.tensor([[token for tree in laid for token in tree.tokens]])
    attend = _attend(session, laid, torch.from_numpy(depths), torch.from_numpy(slots))
    hidden = session.engine.run(tokens, torch.from_numpy(positions)[None], attend)[0]
    parts = hidden.split([len(tree) for tree in laid])
    return {
        row: Looked(tree, states, len(session.tokens[row]))
        for row, tree, states in zip(chosen.tolist(), laid, parts, strict=True)
    }


def _attend(session: Decoding, trees: Sequence[Tree], depths: Tensor, slots: Tensor) -> Attend:
    """Queries of one tree a slot over what the slot has, and over their own ancestors, whose keys it writes."""
    rows, config = session.rows, session.engine.config
    assert rows is not None
    n, longest = depths.shape
    groups, whole = config.heads // config.kv_heads, len(slots) == n * longest
    family = torch.eye(longest, dtype=torch.bool).repeat(n, 1, 1)  # what is only padding sees itself
    for i, tree in enumerate(trees):
        family[i, : len(tree), : len(tree)] = torch.from_numpy(tree.lineage)
    views = {
        size: (
            rows.levels(n) if size is None else rows.near(n, size, depths),
            *rows.beside(n, size, depths, family),
        )
        for size in config.sizes
    }
    device = rows.buffer.device
    here, at = torch.arange(n)[:, None], torch.from_numpy(rows.own[:n, None]) + torch.arange(longest)
    slots = slots.to(device)

    def spread(x: Tensor) -> Tensor:
        """(1, heads, nodes, d) -> (n, heads, longest, d), zero where a tree is smaller."""
        if whole:
            return x[0].unflatten(1, (n, longest)).transpose(0, 1)
        padded = x.new_zeros(n * longest, x.shape[1], x.shape[3])
        padded[slots] = x[0].transpose(0, 1)
        return padded.view(n, longest, *padded.shape[1:]).transpose(1, 2)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        levels, low, mask = views[config.window(layer)]
        q, own = spread(q), rows.buffer[layer]
        own[0, here, :, at], own[1, here, :, at] = spread(k).transpose(1, 2), spread(v).transpose(1, 2)
        keys, values = own[:, :n, :, low : low + mask.shape[2]]
        packed = q.reshape(n, config.kv_heads, groups * longest, -1)  # queries of a group side by side
        seen, norm = look(packed, keys, values, mask[:, None].repeat(1, 1, groups, 1))
        out = add_levels(levels, layer, q, (seen.reshape(q.shape), norm.reshape(q.shape[:3])))
        flat = out.transpose(0, 1).reshape(1, q.shape[1], n * longest, -1)
        return flat if whole else flat[:, :, slots]

    return attend


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
