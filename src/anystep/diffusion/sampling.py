"""Samples straight from a denoiser, many at once and of many classes, without a search or a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL, Denoiser
from anystep.diffusion.process import DiffusionProcess
from anystep.diffusion.solvers.solver import Solver
from anystep.diffusion.states import Noised
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Floats


@dataclass(frozen=True)
class Samples:
    """x: (n, *shape). cost: what all of them took."""

    x: Tensor
    cost: Cost


@dataclass(frozen=True)
class Paths:
    """What the model expected on the way: clean (steps + 1, n, *shape), from pure noise to the samples themselves, and
    the noisy things that it saw, x, alike. times: (steps + 1,), the last 0. cost: what all of them took."""

    clean: Tensor
    x: Tensor
    times: Floats
    cost: Cost


def sample(
    denoiser: Denoiser, solver: Solver, n: int, condition: int | Sequence[int] | None = None, seed: int = 0
) -> Samples:
    """n samples by a solver; sample(n=4) is a prefix of sample(n=8).

    condition: one class for all, or one a row. Preserves what the solver preserves. Raises UsageError for classes that
    the model does not know.
    """
    process, keys, states = _begun(denoiser, solver, n, condition, seed)
    limit = Limit(Ledger(), denoiser.name)
    states = process.step(states, keys, limit, "done").states
    return Samples(states.x, limit.used)


def trajectory(
    denoiser: Denoiser, solver: Solver, n: int, condition: int | Sequence[int] | None = None, seed: int = 0
) -> Paths:
    """The same samples as `sample`'s, at the same cost, with what was expected at each step on the way."""
    process, keys, states = _begun(denoiser, solver, n, condition, seed)
    limit = Limit(Ledger(), denoiser.name)
    states = process.started(states, limit).states
    seen = [states]
    for _ in range(solver.steps):
        states = process.step(states, keys, limit, "step").states
        seen.append(states)
    clean, x = (torch.stack([getattr(s, name) for s in seen]) for name in ("clean", "x"))
    return Paths(clean, x, process.grid, limit.used)


def _begun(
    denoiser: Denoiser, solver: Solver, n: int, condition: int | Sequence[int] | None, seed: int
) -> tuple[DiffusionProcess, Keys, Noised]:
    process = DiffusionProcess(denoiser, solver)
    if n < 0:
        raise UsageError(f"n={n!r}: how many samples; sample(denoiser, solver, n=16).")
    wanted = np.asarray(NULL if condition is None else condition)
    if wanted.shape not in ((), (n,)) or (wanted.size and wanted.dtype.kind not in "iu"):
        raise UsageError(f"condition={condition!r}: one class for all, or {n} in a list; condition=3.")
    if condition is not None and not ((wanted >= 0) & (wanted < denoiser.classes)).all():
        raise UsageError(f"condition={condition!r}: {denoiser.name} knows {denoiser.classes} classes, from 0.")
    keys = lineage.roots(seed, (), np.arange(n))
    return process, keys, process.noise(keys, np.full(n, wanted, dtype=np.int64))
