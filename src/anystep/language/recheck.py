"""A cue written into what a model writes: the step that inserts it, and how long an output is so far."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Process, Stepped, Until, reward


class Cue(Process):
    """The process `trigger` returns: each step writes the same text into its states."""

    logp = "mass"
    branches = False

    def __init__(self, process: LanguageProcess, text: str) -> None:
        tokens = tuple(process.engine.tokenizer.encode(text))
        if not tokens:
            raise UsageError("trigger(process, '') writes nothing; give the cue, such as '#'.")
        self.process, self.text, self.tokens = process, text, tokens
        self.name = f"{process.name} told {text!r}"

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.process.start(keys, limit)

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        if until != "step":
            raise Unsupported(f"{self.name} never ends by itself: step(population, by=trigger), then the model's.")
        told = replace(states, tokens=tuple(tokens + self.tokens for tokens in states.tokens))
        status, errors = self.process.judge(told)
        zeros = np.zeros(len(states))
        return Stepped(told, status, zeros, zeros, limit.used, errors=errors)

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.process.answers(states)

    def texts(self, states: Sequences) -> tuple[str, ...]:
        return self.process.texts(states)

    def merges(self) -> Hashable:
        return "cue", self.text, self.process.merges()

    def settings(self) -> str:
        return f"{self.text!r} into {self.process.settings()}"

    def dump(self, states: Sequences) -> bytes:
        return self.process.dump(states)

    def load(self, data: bytes) -> Sequences:
        return self.process.load(data)


def trigger(process: LanguageProcess, text: str) -> Cue:
    """The process whose step writes `text` at the end of what `process` has written, as if it had written it.

    Free by itself: the next step of `process` reads the cue, and pays for it, as prompt tokens. Log-probabilities stay
    those of what the model chose. A cue that reaches the cap ends the state there, as `process` would.
    """
    if not isinstance(process, LanguageProcess):
        raise UsageError(f"trigger({process!r}, {text!r}): give the LanguageProcess that writes, and the cue.")
    return Cue(process, text)


def _written(states: Sequences) -> list[int]:
    return [len(output) for output in states.outputs()]


written = reward(_written, "written", (0.0, np.inf))
"""The tokens written so far, cues included: free."""
