"""Medusa: extra heads on the last hidden state guess the tokens after the next one, and one pass verifies a tree.

Head k reads the hidden state that the next token comes of, and guesses the token k places after that one; what the
heads rank first, combined, is a tree of likely continuations. Source: Cai et al., "Medusa: Simple LLM Inference
Acceleration Framework with Multiple Decoding Heads" (2024).

Preserves whatever the verifier preserves: under `Follow` plain decoding's output token for token.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.engine.engine import Engine
from anystep.language.engine.trees import Tree
from anystep.ledger import Cost

TOP = 10  # guesses of a head that are considered
Ranks = tuple[tuple[int, ...], ...]  # paths (i1, i2, ...): guess i1 of head 1, then guess i2 of head 2, ...


class Heads(nn.Module):
    """Head k: softmax(outer @ (SiLU(inner[k] h + bias[k]) + skip[k] h + offset[k])) over `words`.

    `words` are tokens that the model often writes and `outer` (words, dim) its own output rows for them, shared by all
    heads and not trained. The published heads have skip = 1 and a matrix over the whole vocabulary each, which on a
    small model would outweigh its layers. `accuracy` (heads, TOP): how often, on text held out, guess i of head k is
    right.
    """

    words: Tensor
    outer: Tensor
    accuracy: Tensor

    def __init__(self, count: int, words: Tensor, outer: Tensor) -> None:
        super().__init__()
        dim = outer.shape[1]
        self.inner, self.bias = nn.Parameter(torch.zeros(count, dim, dim)), nn.Parameter(torch.zeros(count, 1, dim))
        self.skip = nn.Parameter(torch.eye(dim).repeat(count, 1, 1))
        self.offset = nn.Parameter(torch.zeros(count, 1, dim))
        self.register_buffer("words", words)
        self.register_buffer("outer", outer.detach().clone())
        self.register_buffer("accuracy", torch.zeros(count, min(TOP, len(words))))

    def __len__(self) -> int:
        return len(self.inner)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (heads, n, words) of hidden states (n, dim)."""
        return self.ahead(hidden) @ self.outer.T

    def ahead(self, hidden: Tensor) -> Tensor:
        """(heads, n, dim): what stands for the state k places on."""
        return F.silu(hidden @ self.inner + self.bias) + hidden @ self.skip + self.offset

    @torch.inference_mode()
    def guesses(self, hidden: Tensor) -> Tensor:
        """(n, heads, TOP) likeliest tokens, best first."""
        return self.words[self(hidden.float()).topk(self.accuracy.shape[1], -1).indices].transpose(0, 1)

    @property
    def flops(self) -> float:
        """Floating-point operations that all heads take at one position; a multiply and an add count as two."""
        words, dim = self.outer.shape
        return 2.0 * len(self) * dim * (2 * dim + words)


def grow(accuracy: NDArray[np.float64], nodes: int) -> Ranks:
    """The tree of `nodes` paths that accepts most if heads err independently, as far as taking the best next node says.

    accuracy (heads, guesses): how often guess i of head k is right. A path is worth the product of its accuracies. Each
    beginning of the answer is the tree of that size.
    """
    open_: list[tuple[float, tuple[int, ...]]] = [(-float(a), (i,)) for i, a in enumerate(accuracy[0])]
    heapq.heapify(open_)
    taken: list[tuple[int, ...]] = []
    while open_ and len(taken) < nodes:
        worth, path = heapq.heappop(open_)
        taken.append(path)
        if len(path) < len(accuracy):
            for i, a in enumerate(accuracy[len(path)]):
                heapq.heappush(open_, (worth * float(a), (*path, i)))
    return tuple(taken)


def chain(depth: int) -> Ranks:
    """The first guess of each head, one behind the other."""
    return tuple((0,) * (d + 1) for d in range(depth))


@dataclass(frozen=True)
class Medusa(Drafter):
    """Drafts the `ranks` tree of what `heads` guess. `Medusa.load(engine)` has heads trained for a known model.

    Takes no pass of its own; the heads' operations are paid at each draft. Guesses depend on the row alone. Pays where
    the heads were trained on text like what is written; at temperature 1 and above they guess less often right.
    """

    heads: Heads = field(repr=False, compare=False)
    ranks: Ranks
    name = "medusa"

    def __post_init__(self) -> None:
        known, heads, top = set(self.ranks), len(self.heads), self.heads.accuracy.shape[1]
        for i, path in enumerate(self.ranks):
            if not 1 <= len(path) <= heads or not all(0 <= r < top for r in path):
                raise UsageError(f"Medusa(heads, ranks): {path} is no path of {heads} heads with {top} guesses each.")
            if len(path) > 1 and path[:-1] not in self.ranks[:i] or len(known) < len(self.ranks):
                raise UsageError(f"Medusa(heads, ranks): {path} comes once, after its beginning, as in ((0,), (0, 0)).")

    @classmethod
    def load(
        cls,
        engine: Engine,
        nodes: int = 24,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> Medusa:
        """The heads of a known model (`smollm2-135m`), trained on its own text at the first call and then kept.

        nodes: of the largest tree. say: told how the training goes, about half an hour of one core. Raises UsageError
        for a model that no recipe knows: train heads for it with `train.heads.fit(engine, text)`.
        """
        from anystep.language.train.medusa import trained  # imported late: the recipe makes these heads

        return cls.of(trained(engine, say=say), nodes)

    @classmethod
    def of(cls, heads: Heads, nodes: int = 24) -> Medusa:
        """The tree of `nodes` nodes that the heads' held-out accuracies say is best."""
        return cls(heads, grow(heads.accuracy.double().numpy(), nodes))

    def begin(self, job: Job) -> Drafting:
        config = job.process.engine.config
        words, dim = self.heads.outer.shape
        if dim != config.dim or int(self.heads.words.max()) >= config.vocab:
            raise UsageError(
                f"These heads read {dim} dimensions, {job.process.engine.name} has {config.dim}: Medusa.load(engine)."
            )
        return Guessing(self, job)


class Guessing(Drafting):
    def __init__(self, drafter: Medusa, job: Job) -> None:
        self.drafter, self.job = drafter, job
        self.level = drafter.heads.flops / len(drafter.heads) / job.process.engine.flops(1, 1, heads=1)
        place = {path: i for i, path in enumerate(drafter.ranks)}
        self.parents = [place.get(path[:-1], -1) for path in drafter.ranks]
        accuracy = drafter.heads.accuracy.tolist()
        self.chances = [accuracy[len(path) - 1][path[-1]] for path in drafter.ranks]
        self.kinds = [(len(path) - 1) * TOP + path[-1] for path in drafter.ranks]

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        rows = [row for row, want in wants.items() if want.nodes and want.depth]
        granted = self.job.limit.pay(np.array(rows, np.int64), Cost(flops=self.drafter.heads.flops)) if rows else ()
        rows = [row for row, paid in zip(rows, granted, strict=True) if paid]
        if not rows:
            return {}
        session, place = self.job.session, self.job.place
        guesses = self.drafter.heads.guesses(session.hidden[[place[row] for row in rows]]).tolist()
        return {row: self._tree(guess, wants[row]) for row, guess in zip(rows, guesses, strict=True)}

    def _tree(self, guesses: Sequence[Sequence[int]], want: Want) -> Draft:
        """The best nodes that are wanted: ranks are in order of worth, so the first ones."""
        ranks = self.drafter.ranks
        chosen = [i for i, path in enumerate(ranks) if len(path) <= want.depth][: want.nodes]
        new = {-1: -1} | {node: i for i, node in enumerate(chosen)}
        tokens = tuple(guesses[len(ranks[i]) - 1][ranks[i][-1]] for i in chosen)
        tree = Tree(tokens, tuple(new[self.parents[i]] for i in chosen))
        return Draft(tree, {}, tuple(self.chances[i] for i in chosen), tuple(self.kinds[i] for i in chosen))
