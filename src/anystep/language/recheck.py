"""A cue written into what a model writes: the step that inserts it, and how long an output is so far."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from anystep.errors import UsageError
from anystep.language.editing import Editor
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.process import reward


class Cue(Editor):
    """The process `trigger` returns: each step writes the same text into its states."""

    def __init__(self, process: LanguageProcess, text: str) -> None:
        super().__init__(process, f"{process.name} told {text!r}")
        self.text, self.tokens = text, tuple(process.engine.tokenizer.encode(text))
        if not self.tokens:
            raise UsageError("trigger(process, '') writes nothing; give the cue, such as '#'.")

    def told(self, states: Sequences) -> list[tuple[int, ...]]:
        return [self.tokens] * len(states)

    def merges(self) -> Hashable:
        return "cue", self.text, self.process.merges()

    def settings(self) -> str:
        return f"{self.text!r} into {self.process.settings()}"


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
