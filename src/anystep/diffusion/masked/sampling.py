"""Samples straight from a masked model, many at once and of many classes, without a search or a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL
from anystep.diffusion.masked.process import MaskedProcess
from anystep.errors import UsageError
from anystep.ledger import Cost, Ledger, Limit


@dataclass(frozen=True)
class Sequences:
    """tokens: (n, length). cost: what all of them took."""

    tokens: Tensor
    cost: Cost


def sample(process: MaskedProcess, n: int, condition: Sequence[int] | None = None, seed: int = 0) -> Sequences:
    """n samples of a masked process; sample(n=4) is a prefix of sample(n=8).

    condition: one class a row, by default the process's own. Preserves what the process preserves. Raises UsageError
    for classes that the model does not know.
    """
    given = [process.condition] * n if condition is None else condition
    wanted = np.broadcast_to(np.asarray(given, dtype=np.int64), (n,)).copy()
    if not ((wanted >= NULL) & (wanted < process.model.classes)).all():
        raise UsageError(f"condition={condition!r}: {process.model.name} knows {process.model.classes} classes, from 0")
    limit = Limit(Ledger(), process.name)
    keys = lineage.roots(seed, (), np.arange(n))
    states = process.step(process.masked(keys, wanted), keys, limit, "done").states
    return Sequences(states.tokens, limit.used)
