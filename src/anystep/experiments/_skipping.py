"""A drafter for experiments: the target itself with some of its layers left out, greedily, one chain.

Source: Zhang et al., "Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative Decoding" (2024).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama
from anystep.language.engine.trees import Tree
from anystep.ledger import Cost


def skipping(engine: Engine, skipped: Sequence[int]) -> Engine:
    """An engine of the same weights without the layers `skipped`; for models in fp32."""
    whole = engine.model
    assert isinstance(whole, Llama)
    kept = [copy.copy(block) for i, block in enumerate(whole.layers) if i not in skipped]
    model = copy.copy(whole)
    model.config = replace(whole.config, layers=len(kept))
    model._modules = dict(whole._modules)
    for i, block in enumerate(kept):
        attention = copy.copy(block.self_attn)
        attention.layer = i  # which keys are its own
        block._modules = dict(block._modules) | {"self_attn": attention}
    model.layers = nn.ModuleList(kept)
    return Engine(model, engine.tokenizer, name=f"{engine.name} without {len(skipped)} layers")


@dataclass(frozen=True)
class LayerSkip(Drafter):
    """Drafts with `engine`, made by `skipping`; `wrong` (a share) of the guesses are replaced by random tokens."""

    engine: Engine
    wrong: float = 0.0
    name = "layer-skip"

    def begin(self, job: Job) -> Drafting:
        return _Skipping(self, job)


@dataclass
class _Skipping(Drafting):
    drafter: LayerSkip
    job: Job
    session: Decoding = field(init=False)

    def __post_init__(self) -> None:
        engine, rows = self.drafter.engine, list(self.job.place)
        self.at = {row: i for i, row in enumerate(rows)}
        plan = engine.plan([self.job.tokens[row][:-1] for row in rows])
        each, once = engine.price(plan)
        self.paid = self.job.limit.pay(np.array(rows), each, once=once)
        self.session = engine.open(plan)
        self.level = engine.config.layers / self.job.process.engine.config.layers
        self.rng = np.random.default_rng(0)

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        session, guesses = self.session, {row: list[int]() for row in wants}
        todo: dict[int, list[int]] = {}
        for row in wants:
            fed, tokens = session.tokens[self.at[row]], self.job.tokens[row]
            same = next((i for i, (a, b) in enumerate(zip(fed, tokens, strict=False)) if a != b), len(fed))
            session.rewind({self.at[row]: min(same, len(tokens) - 1)})
            todo[row] = list(tokens[len(session.tokens[self.at[row]]) :])
        while todo:
            rows = list(todo)
            self.job.limit.pay(np.array(rows), [Cost(evaluations=1)] * len(rows), once=Cost(calls=1))
            places = [self.at[row] for row in rows]
            session.append([todo[row].pop(0) for row in rows], places)
            best = session.logits(places).argmax(-1).tolist()
            for row, token in zip(rows, best, strict=True):
                if not todo[row]:
                    guesses[row].append(token)
                    todo[row] = [token]
                    if len(guesses[row]) == min(wants[row].depth, wants[row].nodes):
                        del todo[row]
        return {row: Draft(Tree.chain(self._spoilt(some))) for row, some in guesses.items()}

    def _spoilt(self, guess: list[int]) -> list[int]:
        wrong = self.rng.random(len(guess)) < self.drafter.wrong
        other = self.rng.integers(0, self.job.process.engine.config.vocab, len(guess))
        return [int(o) if w else g for g, w, o in zip(guess, wrong, other, strict=True)]

    def close(self) -> None:
        self.session.close()
