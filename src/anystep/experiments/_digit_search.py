"""Searches over the noises of DigitFlow: one run a digit, so that every sample of a set is a search's answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion import DiffusionProcess, on_clean
from anystep.diffusion.denoiser import Denoiser
from anystep.diffusion.evaluate import digits_conditions
from anystep.diffusion.solvers import Solver
from anystep.drive import drive
from anystep.procedure import Method
from anystep.process import Floats, Reward
from anystep.run import Run

Score = Callable[[Tensor, int], Tensor]
"""What images (n, 8, 8) are worth as this digit: (n,), higher is better."""


@dataclass(frozen=True)
class Told:
    """A verifier of one digit, as `on_clean` takes it: equal where verifier and digit are."""

    score: Score
    digit: int

    def __call__(self, x: Tensor) -> Tensor:
        return self.score(x, self.digit)


@dataclass(frozen=True)
class Found:
    """A set of samples, one a search. x: (n, 8, 8). digits: (n,). evaluations: the network's, (n,). verified: how many
    times the verifier was asked, (n,)."""

    x: Tensor
    digits: Tensor
    evaluations: Floats
    verified: Floats
    scores: Floats = field(repr=False)

    def by(self, score: Score) -> Floats:
        """(n,) what another verifier says of the samples."""
        values = torch.zeros(len(self.x), dtype=torch.float64)
        for digit in sorted(set(self.digits.tolist())):
            rows = self.digits == digit
            values[rows] = score(self.x[rows], digit).double()
        return values.numpy()


MethodOf = Callable[[Reward, DiffusionProcess], Method]


def searched(model: Denoiser, solver: Solver, score: Score, method_of: MethodOf, n: int, seed: int) -> Found:
    """n searches, a class each as in `digits_conditions`, driven side by side and merged into batches."""
    digits = torch.as_tensor(digits_conditions()[:n])
    made: dict[int, tuple[DiffusionProcess, Method]] = {}
    for digit in sorted(set(digits.tolist())):
        process = DiffusionProcess(model, solver, condition=digit)
        made[digit] = process, method_of(on_clean(Told(score, digit), "verifier", (-np.inf, np.inf)), process)
    seeds = lineage.roots(seed, (), np.arange(n)) >> np.uint64(1)
    runs = [Run(*made[digit], seed=int(own)) for digit, own in zip(digits.tolist(), seeds, strict=True)]
    for at in range(0, n, 250):
        drive(*runs[at : at + 250])
    chosen = []
    for run in runs:
        assert run.answer is not None and run.answer.population is not None and run.answer.row is not None
        chosen.append(run.answer.population.take([run.answer.row]))
    scored = [sum(1 for value in run.books.family.scores.values() if np.isfinite(value)) for run in runs]
    return Found(
        torch.cat([p.states.x for p in chosen]),
        digits,
        np.array([run.ledger.spent.evaluations for run in runs], dtype=np.float64),
        np.array(scored, dtype=np.float64),
        np.array([p.scores[0] for p in chosen]),
    )
