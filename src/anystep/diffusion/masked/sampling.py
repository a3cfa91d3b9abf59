"""Samples straight from a masked model, many at once and of many classes, without a search or a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def sample(
    process: MaskedProcess,
    n: int,
    condition: Sequence[int] | None = None,
    seed: int = 0,
    tokens: Tensor | None = None,
) -> Sequences:
    """n samples of a masked process; sample(n=4) is a prefix of sample(n=8).

    condition: one class a row, by default the process's own. tokens: (n, length) to fill in, by default what the
    process knows; the same sites are hidden in every row. Preserves what the process preserves. Raises UsageError
    for classes that the model does not know, and tokens that are hidden elsewhere.
    """
    given = np.asarray([process.condition] * max(n, 0) if condition is None else condition)
    if n < 0 or given.shape not in ((), (n,)) or (given.size and given.dtype.kind not in "iu"):
        raise UsageError(f"sample(n={n!r}, condition={condition!r}): a class for each of n rows; sample(process, n=4).")
    wanted = np.full(n, given, dtype=np.int64)
    if not ((wanted >= NULL) & (wanted < process.model.classes)).all():
        raise UsageError(f"condition={condition!r}: {process.model.name} knows {process.model.classes} classes, from 0")
    limit = Limit(Ledger(), process.name)
    keys = lineage.roots(seed, (), np.arange(n))
    states = process.masked(keys, wanted)
    if tokens is not None:
        hidden = [t == process.model.mask for t in (tokens, states.tokens)]
        known = tokens.dtype == states.tokens.dtype and bool(((tokens >= 0) & (tokens <= process.model.mask)).all())
        if not known or tokens.shape != states.tokens.shape or not hidden[0].equal(hidden[1]):
            raise UsageError(
                "sample(tokens=...): int64 symbols, (n, length), hidden where MaskedProcess(known=...) has it."
            )
        states = replace(states, tokens=tokens, clean=tokens)
    states = process.step(states, keys, limit, "done").states
    return Sequences(states.tokens, limit.used)
