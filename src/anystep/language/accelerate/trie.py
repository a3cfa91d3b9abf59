"""Tries of tokens with counts, bounded together: what `lookahead` remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


class Node:
    """`count`: how often the stretch of tokens that ends here was seen."""

    __slots__ = ("children", "count")

    def __init__(self) -> None:
        self.count, self.children = 0.0, dict[int, Node]()


@dataclass
class Tails:
    """Where a text stands in a trie: its last tokens, and the nodes of the stretches that end there, longest first."""

    recent: tuple[int, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    version: int = 0


class Memory:
    """Tries that hold at most `capacity` nodes in all, of stretches of at most `length` tokens. `outputs` is what was
    said, and is forgotten by halves when room is needed, unless `decay` is False; other tries last as long as they are
    used. `largest` and `halvings` say what became of it."""

    def __init__(self, capacity: int, length: int, decay: bool = True) -> None:
        self.capacity, self.length, self.decay = capacity, length, decay
        self.version = self.largest = self.halvings = 0
        self.clear()

    def clear(self) -> None:
        self.outputs, self.size = Node(), 0
        self.version += 1

    def enter(self, trie: Node, tails: Tails, token: int) -> None:
        """Counts every stretch of the text at `tails` that `token` ends. What there is no room for is left out."""
        if self.size + len(tails.nodes) + 1 > self.capacity and self.decay:
            self.halve()
        if tails.version != self.version:
            tails.nodes = self.ending(trie, tails.recent)
            tails.version = self.version
        grown = []
        for node in (*tails.nodes, trie):
            child = node.children.get(token)
            if child is None:
                if self.size == self.capacity:
                    continue
                child = node.children[token] = Node()
                self.size += 1
            child.count += 1
            grown.append(child)
        self.largest = max(self.largest, self.size)
        tails.recent = (*tails.recent, token)[1 - self.length :] if self.length > 1 else ()
        tails.nodes = grown if len(grown) < self.length else grown[1:]

    def ending(self, trie: Node, tokens: Sequence[int]) -> list[Node]:
        """The nodes of all stretches that `tokens` end with, longest first."""
        found = (after(trie, tokens[start:]) for start in range(max(0, len(tokens) - self.length + 1), len(tokens)))
        return [node for node in found if node is not None]

    def halve(self) -> None:
        """Halves every output's count and forgets what is left with one or less."""
        self.halvings += 1
        gone = _halved(self.outputs)
        if gone:
            self.size -= gone
            self.version += 1

    def drop(self, trie: Node) -> None:
        """The end of a trie that is no longer used."""
        self.size -= nodes_below(trie)
        trie.children = {}


def after(node: Node | None, tokens: Sequence[int]) -> Node | None:
    """The node at the end of `tokens` below `node`, None where they were not seen."""
    for token in tokens:
        if node is None:
            return None
        node = node.children.get(token)
    return node


def nodes_below(node: Node) -> int:
    return sum(1 + nodes_below(child) for child in node.children.values())


def _halved(node: Node) -> int:
    """How many nodes below `node` went."""
    gone = 0
    for token, child in list(node.children.items()):
        child.count /= 2
        if child.count <= 1:
            del node.children[token]
            gone += 1 + nodes_below(child)
        else:
            gone += _halved(child)
    return gone
