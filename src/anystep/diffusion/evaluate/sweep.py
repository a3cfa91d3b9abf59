"""Quality against evaluations: samplers of digits over seeds, each at what it really took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from anystep.diffusion.denoiser import Denoiser
from anystep.diffusion.evaluate.digits import digits_conditions, digits_quality
from anystep.diffusion.evaluate.quality import Quality, Spread, over
from anystep.diffusion.sampling import sample
from anystep.diffusion.solvers.solver import Solver


@dataclass(frozen=True)
class Swept:
    """What a solver gave: evaluations a sample, guidance and inner stages counted, and figures over seeds."""

    solver: Solver
    evaluations: float
    quality: Spread


def sweep(
    denoiser: Denoiser,
    solvers: Sequence[Solver],
    seeds: Sequence[int] = (0, 1, 2),
    conditions: Sequence[int] | None = None,
    judge: Callable[[Tensor], Quality] = digits_quality,
) -> list[Swept]:
    """Each solver's samples, judged once a seed.

    conditions: the class of each sample; by default those of the held-out digits. judge: the figures of samples.
    """
    classes = digits_conditions() if conditions is None else list(conditions)

    def one(solver: Solver) -> Swept:
        drawn = [sample(denoiser, solver, len(classes), classes, seed) for seed in seeds]
        spent = sum(d.cost.evaluations for d in drawn) / (len(seeds) * len(classes))
        return Swept(solver, spent, over([judge(d.x) for d in drawn]))

    return [one(solver) for solver in solvers]
