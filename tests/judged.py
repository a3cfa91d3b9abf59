"""Texts as the states that a reward sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Written:
    """A prompt and a text each."""

    pairs: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, index: Any) -> Written:
        return Written(tuple(self.pairs[i] for i in np.asarray(index).tolist()))

    def join(self, *others: Written) -> Written:
        return Written(sum((other.pairs for other in others), self.pairs))

    def prompts(self) -> tuple[str, ...]:
        return tuple(prompt for prompt, _ in self.pairs)

    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.pairs)


def written(*candidates: str, question: str = "Which?") -> Written:
    return Written(tuple((question, text) for text in candidates))
