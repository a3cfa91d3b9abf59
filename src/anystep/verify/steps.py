"""How many steps has a chain? A free count, for decisions that prefer long reasoning to short, or short to long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from anystep.errors import UsageError
from anystep.ledger import Cost, Limit
from anystep.process import Reward, Scored


@dataclass(frozen=True)
class Steps(Reward):
    """The number of different steps in each state's text; see `steps`."""

    separator: str = "\n"
    end: str | None = None
    name: str = "steps"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)  # type: ignore[misc]

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(np.array([self.count(text) for text in states.texts()], dtype=np.float64), Cost())

    def count(self, text: str) -> int:
        """The steps of one text: its distinct parts that are not blank, 0 where it was cut off before its `end`."""
        if self.end is not None and self.end not in text:
            return 0
        body = text if self.end is None else text[: text.index(self.end)]
        return len({part.strip() for part in body.split(self.separator)} - {""})


def steps(separator: str = "\n", end: str | None = None) -> Steps:
    """The number of reasoning steps in a state's text, 0 or more: a free reward.

    separator: what stands between steps. A step that is written again is counted once, for a loop is no reasoning.
    end: what a whole chain ends with, where it can be seen in the text; a chain without it was cut off, and has 0.
    It says nothing of whether the steps are right. Source: Fu et al., "Complexity-Based Prompting for Multi-Step
    Reasoning" (ICLR 2023), arXiv 2210.00720.
    """
    if not isinstance(separator, str) or not separator or end == "":
        raise UsageError(
            f"steps(separator={separator!r}, end={end!r}): texts that are not empty, such as steps('\\n')."
        )
    return Steps(separator, end)
