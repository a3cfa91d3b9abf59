"""DiSA: fewer denoising steps for the later parts of an image, which what is there already leaves less to choose.

Source: Zhao et al., "DiSA: Diffusion Step Annealing in Autoregressive Image Generation" (2025), arXiv 2505.20297.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from anystep.errors import UsageError

Kind = Literal["linear", "cosine", "two-stage"]


@dataclass(frozen=True)
class StepAnnealing:
    """See `step_annealing`."""

    upper: int
    lower: int
    kind: Kind

    def at(self, iteration: int, iterations: int) -> int:
        """The denoising steps of an iteration, counted from 0."""
        left = 1.0 if iterations == 1 else (iterations - 1 - iteration) / (iterations - 1)
        if self.kind == "cosine":
            left = (1 - np.cos(np.pi * left)) / 2
        elif self.kind == "two-stage":
            left = float(2 * iteration < iterations)
        return self.lower + int(left * (self.upper - self.lower))

    def all(self, iterations: int) -> tuple[int, ...]:
        return tuple(self.at(i, iterations) for i in range(iterations))


def step_annealing(upper: int = 50, lower: int = 5, kind: Kind = "linear") -> StepAnnealing:
    """How many denoising steps each iteration of a `PatchProcess` takes: `upper` at first, `lower` at last.

    step_annealing(50, 5).all(4) is (50, 35, 20, 5). Preserves nothing exactly: later patches are drawn with a larger
    error of the solver, which is small where their law is narrow. Training-free. kind: "linear" falls evenly, "cosine"
    slowly at both ends, "two-stage" takes `upper` in the first half and `lower` in the second. Equal numbers are the
    plain process; upper < lower is the reverse, as an ablation. Raises UsageError for less than one step.
    """
    if not (isinstance(upper, int) and isinstance(lower, int) and upper >= 1 and lower >= 1):
        raise UsageError(f"step_annealing({upper!r}, {lower!r}): steps are 1 or more; step_annealing(50, 5).")
    if kind not in ("linear", "cosine", "two-stage"):
        raise UsageError(f"step_annealing(kind={kind!r}): the kinds are 'linear', 'cosine' and 'two-stage'.")
    return StepAnnealing(upper, lower, kind)
