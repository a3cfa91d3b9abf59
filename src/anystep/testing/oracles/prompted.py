"""An enumerable language model whose law hangs on a prompt, and what changes that prompt in the middle."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep.keys import Keys
from anystep.process import Status
from anystep.stepwise import Moved, Stepwise
from anystep.testing.oracles.language import EnumerableLM, Sequences


class PromptedLM(EnumerableLM):
    """Under the k-th prompt (`note` of its states) the law of the k-th of `prompts` models; under none, the first's."""

    def __init__(self, prompts: int = 3, seed: int = 0, vocab: int = 3, length: int = 4) -> None:
        super().__init__(seed, vocab, length, name="prompted-lm")
        self.under = tuple(EnumerableLM(seed + k, vocab, length) for k in range(prompts))

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        contexts, rows = self.contexts(states), np.arange(len(states))
        laws = np.stack([self.under[k].numerators[c] for k, c in zip(states.note.tolist(), contexts, strict=True)])
        p = laws / laws.sum(-1, keepdims=True)
        token = lineage.choose(p, lineage.uniforms(keys, states.size))
        longer = self.appended(states, token)
        return Moved(longer, self.status(longer), np.log(p[rows, token]), np.zeros(len(rows)))


class Prompt(Stepwise):
    """Puts states of an enumerable language model under its k-th prompt, which is free; what stands is kept."""

    logp = "mass"
    states = Sequences
    horizon = 1
    branches = False

    def __init__(self, model: EnumerableLM, k: int) -> None:
        self.model, self.k, self.name = model, k, f"prompt {k}"

    def begin(self, keys: Keys) -> Any:
        return self.model.begin(keys)

    def free(self, states: Sequences) -> np.ndarray:
        return np.ones(len(states), dtype=bool)

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        n = len(states)
        told = Sequences(states.tokens, states.size, np.full(n, self.k))
        return Moved(told, np.full(n, Status.LIVE, dtype=np.int8), np.zeros(n), np.zeros(n))

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.model.answers(states)
