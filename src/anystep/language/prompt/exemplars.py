"""Which worked examples stand before a question: those with the most steps, the fewest, or any, in as much room.

Source: Fu et al., "Complexity-Based Prompting for Multi-Step Reasoning" (ICLR 2023), arXiv 2210.00720.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from anystep import keys
from anystep.errors import UsageError

Choose = Literal["most", "fewest", "random"]


@dataclass(frozen=True)
class Example:
    """A question and its worked solution, one step a line."""

    question: str
    solution: str

    @property
    def steps(self) -> int:
        """Lines of the solution that are not blank."""
        return sum(bool(line.strip()) for line in self.solution.split("\n"))


def exemplars(
    examples: Sequence[Example],
    room: int,
    choose: Choose = "most",
    length: Callable[[Example], int] = lambda example: len(example.question) + len(example.solution),
    seed: int = 0,
) -> tuple[Example, ...]:
    """Examples whose lengths together fill `room` as far as they go, the most complex first considered.

    choose: complexity-based prompting takes those with the "most" steps; "fewest" and "random" are its controls. Equal
    ones are taken in random order. One that no longer fits is passed over, so sets of either kind fill the same room
    with more or fewer examples. length: of one as it stands in the prompt, in whatever `room` counts; characters by
    default. UsageError where not one fits.
    """
    if choose not in get_args(Choose):
        raise UsageError(f"exemplars(choose={choose!r}): 'most', 'fewest' or 'random' steps.")
    drawn = keys.uniforms(keys.roots(seed, (), np.arange(len(examples))))
    sign = {"most": -1, "fewest": 1, "random": 0}[choose]
    order = sorted(range(len(examples)), key=lambda i: (sign * examples[i].steps, drawn[i]))
    taken, left = list[Example](), room
    for i in order:
        size = length(examples[i])
        if size <= left:
            taken.append(examples[i])
            left -= size
    if not taken:
        raise UsageError(f"exemplars(room={room}): none of {len(examples)} examples is so short; give more room.")
    return tuple(taken)
