"""Lookahead: what followed in the prompt and in earlier outputs is guessed again, several branches at a time.

Source: Zhao et al., "Lookahead: An Inference Acceleration Framework for Large Language Model with Lossless Generation
Accuracy" (2024). Two limits differ from the released code: the capacity is one number for all tries, and it holds
after every token.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.speculative import Speculative, speculate
from anystep.language.accelerate.trie import Memory, Node, Tails, after, nodes_below
from anystep.language.engine.trees import Tree
from anystep.language.process import LanguageProcess

OUTPUT = 1e-4  # weight of an output's count against a prompt's, which is 1 minus this
Both = tuple[Node | None, Node | None]  # where a stretch stands in the prompt's trie and in that of outputs
Path = tuple[int, ...]


@dataclass(frozen=True)
class TrieLookahead(Drafter):
    """Guesses the likeliest continuations, as counted in tries, of the row's last `query` tokens, or of fewer where
    those have less than `branch` nodes below them. Costs no pass of any model.

    branch: how many tokens ahead a branch goes. capacity: nodes of all tries together. mode: "tree" is several
    branches, what they share held once, "one" the likeliest branch alone. sources: what is looked up, of "prompt" and
    "output". remember: outputs are kept for later rows and calls; without it guesses depend on the row alone. decay:
    without it nothing is forgotten, and full tries take nothing new.

    A prompt's counts go before outputs', which are sure of half the nodes of a draft if they have as many. Pays where
    answers quote their context or resemble earlier ones. Raises UsageError for settings that cannot be meant.
    """

    branch: int = 12
    query: int = 2
    capacity: int = 65_536
    mode: Literal["tree", "one"] = "tree"
    sources: tuple[str, ...] = ("prompt", "output")
    remember: bool = True
    decay: bool = True
    memory: Memory = field(init=False, repr=False, compare=False)
    lock: threading.RLock = field(init=False, repr=False, compare=False, default_factory=threading.RLock)
    name = "trie-lookahead"

    def __post_init__(self) -> None:
        if min(self.branch, self.query, self.capacity) < 1:
            raise UsageError(f"{self!r}: branch, query and capacity are positive whole numbers.")
        if self.mode not in ("tree", "one") or not {"prompt", "output"} >= set(self.sources) > set():
            raise UsageError(f"{self!r}: mode is 'tree' or 'one'; sources are of 'prompt' and 'output'.")
        object.__setattr__(self, "memory", Memory(self.capacity, self.query + self.branch, self.decay))

    @property
    def shared(self) -> bool:  # type: ignore[override]
        return self.remember

    def begin(self, job: Job) -> Drafting:
        with self.lock:
            return Lookahead(self, job)

    def forget(self) -> None:
        with self.lock:
            self.memory.clear()


def trie_lookahead(process: LanguageProcess, **settings: Any) -> Speculative:
    """`process` sped up by lookahead tries: `speculate(process, TrieLookahead(...))` under its paper's name.

    Preserves plain decoding's output, token for token. settings: those of `TrieLookahead`.
    """
    return speculate(process, TrieLookahead(**settings))


class Lookahead(Drafting):
    """One call's tries: each prompt's, once, and what is said, which is entered as it is said."""

    def __init__(self, drafter: TrieLookahead, job: Job) -> None:
        self.drafter, self.job, memory = drafter, job, drafter.memory
        self.prompts: dict[tuple[int, ...], Node] = {}
        self.said: dict[int, Node] = {}
        self.tails: dict[int, Tails] = {}
        self.entered: dict[int, int] = {}  # how many of a row's tokens are in its tries
        for row in job.place:
            tokens, start = job.tokens[row], job.starts[row]
            if "prompt" in drafter.sources and tokens[:start] not in self.prompts:
                trie, tails = Node(), Tails()
                for token in tokens[:start]:
                    memory.enter(trie, tails, token)
                self.prompts[tokens[:start]] = trie
            if drafter.remember:  # what was said in earlier calls is in there
                self.said[row], self.entered[row] = memory.outputs, len(tokens)
                recent = tokens[start:][-memory.length :]
                self.tails[row] = Tails(recent, memory.ending(memory.outputs, recent), memory.version)
            else:
                self.said[row], self.entered[row], self.tails[row] = Node(), start, Tails()

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        with self.drafter.lock:
            for row in wants:
                self._enter(row)
            return {row: self._guess(row, want) for row, want in wants.items()}

    def close(self) -> None:
        with self.drafter.lock:
            for row in self.tails:
                self._enter(row)
            for trie in self.prompts.values():
                self.drafter.memory.drop(trie)
            if not self.drafter.remember:
                for trie in self.said.values():
                    self.drafter.memory.drop(trie)

    def _enter(self, row: int) -> None:
        """What the row has said since the last time."""
        if "output" in self.drafter.sources:
            for token in self.job.tokens[row][self.entered[row] :]:
                self.drafter.memory.enter(self.said[row], self.tails[row], token)
            self.entered[row] = len(self.job.tokens[row])

    def _guess(self, row: int, want: Want) -> Draft:
        tokens, start, drafter = self.job.tokens[row], self.job.starts[row], self.drafter
        prompt, said = self.prompts.get(tokens[:start]), self.said[row]
        for size in range(min(drafter.query, len(tokens)), 0, -1):
            at = after(prompt, tokens[-size:]), after(said, tokens[-size:])
            if size == 1 or sum(nodes_below(node) for node in at if node) >= drafter.branch:
                break
        depth = min(want.depth, drafter.branch)
        paths = one(at, min(want.nodes, depth)) if drafter.mode == "one" else several(at, want.nodes, depth)
        return drawn_up(at, paths, size)


def score(at: Both) -> float:
    prompt, said = at
    return (1 - OUTPUT) * (prompt.count if prompt else 0.0) + OUTPUT * (said.count if said else 0.0)


def output(at: Both) -> float:
    return at[1].count if at[1] else 0.0


def below(at: Both) -> dict[int, Both]:
    """Each token that was seen next, and where it stands."""
    prompt, said = ({} if node is None else node.children for node in at)
    return {token: (prompt.get(token), said.get(token)) for token in {**prompt, **said}}


def one(at: Both, count: int) -> list[Path]:
    """The likeliest token, then the likeliest after it, and so on."""
    paths: list[Path] = []
    path: Path = ()
    while len(paths) < count and (ways := below(at)):
        token = max(ways, key=lambda token: (score(ways[token]), -token))
        at, path = ways[token], (*path, token)
        paths.append(path)
    return paths


def several(at: Both, count: int, depth: int) -> list[Path]:
    """The best nodes of the tree below: half of them by outputs' counts, then by both, as far as there are any."""
    taken = dict.fromkeys(islice(best(at, depth, output), count // 2))
    for path in best(at, depth, score):
        if len(taken) >= count:
            break
        taken[path] = None
    return list(taken)


def best(at: Both, depth: int, key: Callable[[Both], float]) -> Iterator[Path]:
    """Paths below `at`, best first: counts fall along a path, so that a path comes after its beginnings."""
    heap: list[tuple[float, int, Path, Both]] = [(0.0, 0, (), at)]
    while heap:
        _, level, path, at = heapq.heappop(heap)
        if path:
            yield path
        if level < depth:
            for token, way in below(at).items():
                if key(way) > 0:
                    heapq.heappush(heap, (-key(way), level + 1, (*path, token), way))


def drawn_up(at: Both, paths: Sequence[Path], size: int) -> Draft:
    """The draft of these paths, found by the last `size` tokens: a guess's chance is its share of what followed, with
    one sighting of something else added, and guesses are alike by `size` and by rank."""
    order = sorted(paths, key=len)  # stable: siblings stay in the order of their scores
    index: dict[Path, int] = {(): -1} | {path: i for i, path in enumerate(order)}
    ways: dict[Path, dict[int, Both]] = {(): below(at)}
    chances, kinds, ranks = [], [], Counter[Path]()
    for path in order:
        siblings = ways[path[:-1]]
        seen = sum(sum(node.count for node in way if node) for way in siblings.values())
        chances.append(sum(node.count for node in siblings[path[-1]] if node) / (1 + seen))
        kinds.append(4 * size + min(ranks[path[:-1]], 3))
        ranks[path[:-1]] += 1
        ways[path] = below(siblings[path[-1]])
    parents = tuple(index[path[:-1]] for path in order)
    return Draft(Tree(tuple(path[-1] for path in order), parents), {}, tuple(chances), tuple(kinds))
