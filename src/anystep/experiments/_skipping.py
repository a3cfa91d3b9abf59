"""What an experiment on verification drafts with: the target without some of its layers, watched, or made wrong.

Source of the first: Zhang et al., "Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative
Decoding" (2024).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.verify import Verdict
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama


def skipping(engine: Engine, skipped: Sequence[int]) -> Engine:
    """An engine of the same weights, held once, without the layers `skipped`; of models in fp32."""
    whole = engine.model
    assert isinstance(whole, Llama)
    kept = [copy.copy(block) for i, block in enumerate(whole.layers) if i not in skipped]
    model = copy.copy(whole)
    model.config = replace(whole.config, layers=len(kept))
    for i, block in enumerate(kept):
        attention: Any = copy.copy(block.self_attn)
        attention.layer = i  # which keys are its own
        block._modules = dict(block._modules) | {"self_attn": attention}
    model._modules = dict(whole._modules) | {"layers": nn.ModuleList(kept)}
    return Engine(model, engine.tokenizer, name=f"{engine.name} without {len(whole.layers) - len(kept)} layers")


@dataclass
class Tally:
    """By key of a row: its rounds, and the tokens they brought. Of guesses that were made wrong: how many the verifier
    came to, and how many of these it took."""

    rounds: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    met: int = 0
    taken: int = 0


@dataclass(frozen=True)
class Watched(Drafter):
    """`drafter` with a `share` of its guesses replaced by random tokens, and what became of all of them in `tally`."""

    drafter: Drafter
    share: float = 0.0
    seed: int = 0
    tally: Tally = field(default_factory=Tally, compare=False)
    name = "watched"

    def begin(self, job: Job) -> Drafting:
        return Watching(self, job)


class Watching(Drafting):
    def __init__(self, drafter: Watched, job: Job) -> None:
        self.drafter, self.job, self.inner = drafter, job, drafter.drafter.begin(job)
        self.level = self.inner.level
        self.rng = np.random.default_rng(drafter.seed)
        self.wrong: dict[int, tuple[bool, ...]] = {}

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        found, vocab = {}, self.job.process.engine.config.vocab
        for row, draft in self.inner.draft(wants).items():
            wrong = self.rng.random(len(draft)) < self.drafter.share
            other = self.rng.integers(0, vocab, len(draft))
            tokens = tuple(int(o) if w else t for t, w, o in zip(draft.tree.tokens, wrong, other, strict=True))
            found[row], self.wrong[row] = replace(draft, tree=replace(draft.tree, tokens=tokens)), tuple(wrong.tolist())
        return found

    def told(self, row: int, draft: Draft, verdict: Verdict, hidden: Tensor) -> None:
        tally, key, met = self.drafter.tally, int(self.job.keys[row]), {-1, *verdict.nodes}
        tally.rounds[key] += 1
        tally.tokens[key] += len(verdict.nodes) + 1
        for node, parent in enumerate(draft.tree.parents):  # a chain is cut at its end alone: numbers stand
            if parent in met and self.wrong[row][node]:
                tally.met += 1
                tally.taken += node in met
        self.inner.told(row, draft, verdict, hidden)

    def close(self) -> None:
        self.inner.close()
