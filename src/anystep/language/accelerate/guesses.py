"""Drafts in the making, by drafters that are models: a chain of first guesses, each with its siblings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.language.accelerate.drafts import Draft, Job, Want
from anystep.language.engine.sampling import distribution
from anystep.language.engine.trees import Tree


class Growing:
    """A draft in the making: a chain of first guesses, each with its siblings."""

    def __init__(self, tokens: tuple[int, ...], want: Want) -> None:
        self.tokens, self.want = tokens, want
        self.path: list[int] = []  # tokens of the chain
        self.nodes: list[tuple[int, int, float]] = []  # token, parent, chance
        self.proposals: dict[int, NDArray[np.float64]] = {}
        self.at = -1  # the chain's last node

    def add(self, guesses: Sequence[int], q: NDArray[np.float64]) -> None:
        """What may follow the chain, the first of which it goes on with."""
        self.proposals[self.at] = q
        self.nodes += [(token, self.at, float(q[token])) for token in guesses]
        self.at = len(self.nodes) - len(guesses)
        self.path.append(guesses[0])

    def guess(self, logits: Tensor, job: Job, row: int, width: int = 1) -> None:
        """The chain's next token by a drafter's `logits` (vocab,), drawn as the job asks, and `width` - 1 beside it."""
        process = job.process
        q = distribution(logits[None], process.temperature, process.top_p)[0]
        position = len(self.tokens) + len(self.path)
        if job.coupled:
            first = int(lineage.choose(q[None], lineage.uniforms(job.keys[row], [position]))[0])
            p = q if process.temperature else distribution(logits[None], 1.0)[0]
            others = [token for token in np.argsort(-p, kind="stable")[:width].tolist() if token != first]
            self.add([first, *others[: width - 1]], p)
        else:
            lanes = np.arange(1, width + 1, dtype=np.uint64)
            self.add(without_replacement(q, lineage.uniforms(job.keys[row], position, lanes)), q)

    @property
    def more(self) -> bool:
        return len(self.path) < self.want.depth and len(self.nodes) < self.want.nodes

    def draft(self, job: Job) -> Draft:
        tree = Tree(tuple(token for token, _, _ in self.nodes), tuple(parent for _, parent, _ in self.nodes))
        if not job.coupled:
            return Draft(tree, self.proposals)
        sure = tuple(chance for _, _, chance in self.nodes)
        first = {parent: node for node, parent in reversed(list(enumerate(tree.parents)))}
        kinds = tuple(
            8 * (first[parent] != node) + min(7, int(8 * sure[node])) for node, parent in enumerate(tree.parents)
        )
        if job.process.temperature:  # both draw from one uniform: they agree far more often than a token is likely
            return Draft(tree, {}, (), kinds)
        hoped = (
            max(p, 0.5) if first[parent] == node else p
            for node, (p, parent) in enumerate(zip(sure, tree.parents, strict=True))
        )
        return Draft(tree, {}, tuple(hoped), kinds)


def without_replacement(q: NDArray[np.float64], u: NDArray[np.float64]) -> list[int]:
    """Distinct tokens, one a uniform: each drawn from q without those before it; fewer where q has fewer."""
    found: list[int] = []
    for each in u:
        if not q.sum() > 0:
            break
        found.append(int(lineage.choose(q[None], [each])[0]))
        q = q.copy()
        q[found[-1]] = 0.0
    return found
