"""States of a masked process: what is revealed, and what the model says of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.states import Rows


@dataclass(frozen=True, eq=False)
class Masked(Rows):
    """n sequences on their way from hidden to revealed.

    tokens: (n, length) int64, the mask's number where hidden. clean: (n, length) int64, a completion: revealed sites
    as they are, hidden ones as the model predicts them, which rewards read for nothing; `tokens` where the state is
    done. logs: (n, length, symbols) log-probabilities of the model at `tokens`, 0 where the state is done. index: (n,)
    passes taken. known: (n,) False where `clean` and `logs` were not paid for yet. condition: (n,), -1 for none.
    """

    tokens: Tensor
    clean: Tensor
    logs: Tensor
    index: NDArray[np.int64]
    known: NDArray[np.bool_]
    condition: NDArray[np.int64]
