"""Processes that write into what a model wrote: the common part of cues and of associations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from anystep.errors import Unsupported
from anystep.keys import Keys
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Process, Stepped, Until


class Editor(Process):
    """Each step writes `told(states)` behind the states of `process`, as if it had written it; it never ends one.

    Preserves what stands there and its log-probability. Free by itself: the next step of `process` reads what is new,
    and pays for it, as prompt tokens. What reaches the cap ends the state there, as `process` would.
    """

    logp = "mass"
    branches = False

    def __init__(self, process: LanguageProcess, name: str) -> None:
        self.process, self.name = process, name

    @abstractmethod
    def told(self, states: Sequences) -> Sequence[tuple[int, ...]]:
        """The tokens to write behind each state."""

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.process.start(keys, limit)

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        if until != "step":
            raise Unsupported(f"{self.name} never ends by itself: step(population, by=it), then the model's.")
        pairs = zip(states.tokens, self.told(states), strict=True)
        longer = replace(states, tokens=tuple((*tokens, *new) for tokens, new in pairs))
        status, errors = self.process.judge(longer)
        zeros = np.zeros(len(states))
        return Stepped(longer, status, zeros, zeros, limit.used, errors=errors)

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.process.answers(states)

    def texts(self, states: Sequences) -> tuple[str, ...]:
        return self.process.texts(states)

    def dump(self, states: Sequences) -> bytes:
        return self.process.dump(states)

    def load(self, data: bytes) -> Sequences:
        return self.process.load(data)
