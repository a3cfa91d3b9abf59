"""Samples straight from a denoiser, many at once and of many classes, without a search or a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL, Denoiser
from anystep.diffusion.process import DiffusionProcess
from anystep.diffusion.solvers.solver import Solver
from anystep.errors import UsageError
from anystep.ledger import Cost, Ledger, Limit


@dataclass(frozen=True)
class Samples:
    """x: (n, *shape). cost: what all of them took."""

    x: Tensor
    cost: Cost


def sample(
    denoiser: Denoiser, solver: Solver, n: int, condition: int | Sequence[int] | None = None, seed: int = 0
) -> Samples:
    """n samples by a solver; sample(n=4) is a prefix of sample(n=8).

    condition: one class for all, or one a row. Preserves what the solver preserves. Raises UsageError for classes that
    the model does not know.
    """
    process = DiffusionProcess(denoiser, solver)
    wanted = np.full(n, NULL) if condition is None else np.broadcast_to(np.asarray(condition, dtype=np.int64), (n,))
    if condition is not None and not ((wanted >= 0) & (wanted < denoiser.classes)).all():
        raise UsageError(f"condition={condition!r}: {denoiser.name} knows {denoiser.classes} classes, from 0.")
    limit = Limit(Ledger(), denoiser.name)
    keys = lineage.roots(seed, (), np.arange(n))
    states = process.noise(keys, wanted.astype(np.int64))
    states = process.step(states, keys, limit, "done").states
    return Samples(states.x, limit.used)
