"""Prompt lookup: what followed the last time the same few tokens stood there is guessed to follow again.

Source: Saxena, "Prompt Lookup Decoding" (2023); the same idea is in Yang et al., "Inference with Reference" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.engine.trees import Tree


@dataclass(frozen=True)
class PromptLookup(Drafter):
    """One chain: the continuation of the latest earlier place in the row itself, prompt or output, where its last
    `longest` tokens stand, or fewer of them down to `shortest`.

    Costs no pass and holds nothing between calls; a guess depends on the row alone. Pays where answers quote their
    context or repeat themselves; the longer the match, the more often the guess holds, and each length is learnt apart.
    """

    longest: int = 4
    shortest: int = 1
    name = "prompt-lookup"

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise UsageError(f"{self!r}: match from `shortest` tokens, at least one, to `longest`, as in (4, 1).")

    def begin(self, job: Job) -> Drafting:
        return Lookup(self, job.tokens)


@dataclass
class Lookup(Drafting):
    drafter: PromptLookup
    tokens: Sequence[tuple[int, ...]]

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        found = {}
        for row, want in wants.items():
            size, guess = self._continued(self.tokens[row], min(want.depth, want.nodes))
            found[row] = Draft(Tree.chain(guess), kinds=(size,) * len(guess))
        return found

    def _continued(self, tokens: tuple[int, ...], count: int) -> tuple[int, tuple[int, ...]]:
        """How many tokens match, and up to `count` that followed them."""
        for size in range(min(self.drafter.longest, len(tokens) - 1), self.drafter.shortest - 1, -1):
            end = tokens[-size:]
            for at in range(len(tokens) - size - 1, -1, -1):
                if tokens[at : at + size] == end:
                    grown = list(tokens)
                    for i in range(at + size, at + size + count):  # what repeats itself goes on repeating
                        grown.append(grown[i])
                    return size, tuple(grown[len(tokens) :])
        return 0, ()
