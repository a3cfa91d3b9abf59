"""Reflective verification: the model is asked, in the pass that verifies a draft, to look back at that draft.

Behind each branch of the draft stand a short reflective prompt, the last few accepted tokens once more, and the branch
once more. So one pass gives two distributions at every place of the draft: the ordinary one, and one that has seen the
whole draft and was asked to correct it. Their logits are mixed, and an ordinary rule of verification decides on the
mixture. What was added is forgotten after the pass.

Source: "Think Before You Accept: Semantic Reflective Verification for Faster Speculative Decoding", arXiv 2505.18629
(2025). Known to us from its abstract and reviews alone: the prompt's words, the length of what is repeated and the
distribution after the last guess (here the ordinary one) are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft
from anystep.language.accelerate.verify import Follow, Place, Verdict, Verifier
from anystep.language.engine.engine import Engine
from anystep.language.engine.trees import Tree

PROMPT = " Wait, look back at the last words and write them again without mistakes:"


def reflective_verification(
    engine: Engine,
    prompt: str = PROMPT,
    weight: float = 0.1,
    repeat: int = 4,
    rule: Verifier | None = None,
) -> Reflective:
    """A verifier for `speculate`: `rule` (by default `Follow`) on logits (1 - weight) * ordinary + weight * reflective.

    engine: the target, whose tokenizer reads `prompt` and whose context bounds what is shown. weight: 0 to 1. repeat:
    how many of a row's last tokens stand between the prompt and the branch's second copy.
    Raises UsageError for another weight, a negative repeat, or where nothing would stand before the second copy.
    """
    return Reflective(tuple(engine.tokenizer.encode(prompt)), weight, repeat, rule or Follow(), engine.config.context)


@dataclass(frozen=True)
class Reflective(Verifier):
    """`reflective_verification` with its prompt in tokens.

    **Preserves** nothing with weight > 0: tokens are those of the mixture, which depends on what was drafted, and a
    second copy is apt to repeat the first, right or wrong. With weight 0 nothing is added and it is `rule` itself.
    A pass shows the prompt, `repeat` tokens and all but the last guess of each branch more than the draft has nodes,
    and all of them are paid.
    """

    prompt: tuple[int, ...]
    weight: float
    repeat: int
    rule: Verifier
    context: int

    name = "reflective"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or self.repeat < 0 or not self.prompt and self.repeat == 0:
            raise UsageError(
                "reflective_verification(engine, 'Look back:', weight=0.1, repeat=4): a weight in 0..1, and a prompt "
                f"or a repeat of at least one; got {self.prompt}, {self.weight}, {self.repeat}."
            )

    @property
    def keeps(self) -> str:  # type: ignore[override]
        return "nothing" if self.weight else self.rule.keeps

    def shown(self, draft: Draft, tokens: tuple[int, ...]) -> Draft:
        """The draft's nodes, then behind the end of each branch: prompt, last tokens, and the branch but its end."""
        lead = self.lead(tokens)
        longest = 2 * (int(draft.tree.depths.max(initial=-1)) + 1) + len(lead)
        if not self.weight or not len(draft) or len(tokens) + longest > self.context:
            return draft
        shown, parents = list(draft.tree.tokens), list(draft.tree.parents)
        for branch in branches(draft.tree):
            parents += [branch[-1], *range(len(shown), len(shown) + len(lead) + len(branch) - 2)]
            shown += [*lead, *(draft.tree.tokens[node] for node in branch[:-1])]
        return Draft(Tree(tuple(shown), tuple(parents)))

    def lead(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """What stands before a second copy: the prompt and the row's last tokens."""
        return (*self.prompt, *tokens[max(len(tokens) - self.repeat, 0) :])

    def verify(self, places: Sequence[Place], temperature: float, top_p: float) -> list[Verdict]:
        return self.rule.verify([replace(place, logits=self.fused(place)) for place in places], temperature, top_p)

    def fused(self, place: Place) -> Tensor:
        """(1 + nodes, vocab): mixed where the draft has guesses, the ordinary logits elsewhere."""
        tree, logits = place.draft.tree, place.logits[: 1 + len(place.draft)]
        if len(place.logits) == len(logits):  # nothing was added
            return logits
        lead = len(self.prompt) + min(self.repeat, place.position)
        fused, at = logits.clone(), len(logits)  # `at` is where the branch's addition begins
        met: set[int] = set()
        for branch in branches(tree):
            for depth, node in enumerate([-1, *branch[:-1]]):
                if node not in met:  # a beginning that branches share is read in the first of them
                    met.add(node)
                    reflected = place.logits[at + lead - 1 + depth]
                    fused[node + 1] = torch.lerp(logits[node + 1], reflected, self.weight)
            at += lead + len(branch) - 1
        return fused


def branches(tree: Tree) -> list[list[int]]:
    """The tree's paths from its roots to its ends, in the order of their ends."""
    inner = set(tree.parents)
    return [tree.path(node) for node in range(len(tree)) if node not in inner]
