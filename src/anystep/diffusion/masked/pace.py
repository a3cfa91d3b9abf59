"""How many sites does each pass reveal?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class Pace(ABC):
    """How the number of hidden sites falls over the passes."""

    @abstractmethod
    def share(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of sites still hidden at progress in [0, 1]: from 1 down to 0."""

    def hidden(self, sites: int, steps: int) -> NDArray[np.int64]:
        """(steps + 1,) sites still hidden after each pass, from `sites` to 0; every pass reveals one at least.
        steps is at most `sites`."""
        # A hair more than the share, so that 16 (1 - 3/4) is 4 however it was rounded.
        wanted = np.floor(sites * self.share(np.arange(steps + 1) / steps) + 1e-9).astype(np.int64)
        left = [sites]
        for i in range(1, steps + 1):
            left.append(min(max(int(wanted[i]), steps - i), left[-1] - 1))
        return np.array(left)


@dataclass(frozen=True)
class Linear(Pace):
    """As many at each pass."""

    def share(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.0 - progress


@dataclass(frozen=True)
class Cosine(Pace):
    """Few at first, while little is known, and many at last: cos(pi/2 progress) are still hidden.

    Source: Chang et al., "MaskGIT" (CVPR 2022).
    """

    def share(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.cos(0.5 * np.pi * progress)
