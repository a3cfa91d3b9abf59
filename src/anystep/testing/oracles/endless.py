"""A process without an end: random-walk Metropolis on a target that is known in fractions."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.process import Floats
from anystep.stepwise import Arrays, Moved, Stepwise


@dataclass(frozen=True, eq=False)
class Sites(Arrays):
    """site: (n,) where each chain is. t: (n,) the clock."""

    site: NDArray[np.int64]
    t: NDArray[np.int64]


class Metropolis(Stepwise):
    """Propose one of two neighbours on a ring of k sites, accept by the ratio of the target's weights; never done."""

    logp = "mass"
    horizon = None
    states = Sites

    def __init__(self, seed: int = 0, k: int = 6, name: str = "metropolis") -> None:
        if k < 3:
            raise UsageError(f"Metropolis(k={k}): a ring has 3 sites or more; call Metropolis(k=6).")
        self.k, self.name = k, name
        u = lineage.uniforms(lineage.roots(seed, (), np.arange(k)))
        self.weights = tuple(1 + int(w) for w in np.floor(9 * u))

    def target(self) -> list[Fraction]:
        """The law that the chain leaves as it is."""
        return [Fraction(w, sum(self.weights)) for w in self.weights]

    def transition(self) -> list[list[Fraction]]:
        """The kernel, (k, k), in fractions."""
        kernel = [[Fraction(0)] * self.k for _ in range(self.k)]
        for i, w in enumerate(self.weights):
            for j in ((i - 1) % self.k, (i + 1) % self.k):
                kernel[i][j] = Fraction(1, 2) * min(Fraction(1), Fraction(self.weights[j], w))
            kernel[i][i] = 1 - sum(kernel[i], Fraction(0))
        return kernel

    def after(self, steps: int) -> list[Fraction]:
        """The law after so many steps from site 0."""
        law, kernel = [Fraction(i == 0) for i in range(self.k)], self.transition()
        for _ in range(steps):
            law = [sum((law[i] * kernel[i][j] for i in range(self.k)), Fraction(0)) for j in range(self.k)]
        return law

    def forward(self, rows: NDArray[np.int64]) -> Floats:
        """The kernel's rows at these sites, (n, k)."""
        w = np.array(self.weights, dtype=np.float64)
        n = np.arange(len(rows))
        law = np.zeros((len(rows), self.k))
        for site in ((rows - 1) % self.k, (rows + 1) % self.k):
            law[n, site] = 0.5 * np.minimum(1.0, w[site] / w[rows])
        law[n, rows] = 1.0 - law.sum(-1)
        return law

    def begin(self, keys: Keys) -> Sites:
        zeros = np.zeros(len(keys), dtype=np.int64)
        return Sites(zeros, zeros)

    def advance(self, states: Sites, keys: Keys) -> Moved:
        law = self.forward(states.site)
        site = lineage.choose(law, lineage.uniforms(keys, states.t))
        n = len(site)
        return Moved(
            Sites(site, states.t + 1), np.zeros(n, dtype=np.int8), np.log(law[np.arange(n), site]), np.zeros(n)
        )

    def answers(self, states: Sites) -> tuple[Hashable, ...]:
        return tuple(states.site.tolist())
