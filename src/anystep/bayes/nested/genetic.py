"""A small genetic search for the network's architecture: who learns the training set best has offspring.

It calls no likelihood: each network is trained shortly on the points that are there and scored on a held-out fifth of
them. Seconds are what it costs. It preserves nothing by itself; the gates judge the network that it chose.

Source: Gomez-Vargas and Vazquez (arXiv 2405.03293, PRD 2024), who also let such a search choose initial live points.
That is left out here: they would be no uniform draws from the prior, and the evidence would be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from anystep.bayes.nested.network import DEPTH, Architecture, fit
from anystep.bayes.nested.plain import Floats
from anystep.errors import UsageError

GENES: dict[str, tuple[float, ...]] = {
    "layers": (1, 2, 3),
    "width": (32, 64, 100),
    "rate": (1e-3, 2e-3, 4e-3, 8e-3),
    "batch": (32, 128),
}


@dataclass(frozen=True)
class GeneticSearch:
    """`GeneticSearch(population=6, generations=3)`: the better half stays, its children mix two parents' genes.

    Genes are layers, width, rate and batch, from `GENES`. mutation: the chance that a child's gene is drawn anew.
    updates: how long a candidate is trained. like: what else an architecture is, and how long the chosen one is
    trained. No setting is trained twice.
    """

    population: int = 6
    generations: int = 3
    mutation: float = 0.2
    updates: int = 400
    like: Architecture = Architecture()

    def __post_init__(self) -> None:
        if self.population < 3 or self.generations < 1 or not 0 <= self.mutation <= 1 or self.updates < 1:
            raise UsageError(f"{self}: two parents and a child at least, as in GeneticSearch(population=6)")

    def best(self, u: Floats, logl: Floats, best: float, rng: np.random.Generator) -> Architecture:
        """The architecture that learned these points (n, dim) and values (n,) best, by median error on a fifth."""
        out = rng.permutation(len(u)) < len(u) // 5
        target, scores = np.arcsinh((best - logl[out]) / DEPTH), dict[tuple[float, ...], float]()

        def score(genes: tuple[float, ...]) -> float:
            if genes not in scores:
                network = fit(u[~out], logl[~out], best, replace(self.built(genes), updates=self.updates), rng)
                scores[genes] = float(np.median(np.abs(np.arcsinh((best - network(u[out])) / DEPTH) - target)))
            return scores[genes]

        people = [tuple(float(rng.choice(values)) for values in GENES.values()) for _ in range(self.population)]
        for _ in range(self.generations):
            parents = sorted(people, key=score)[: max(2, self.population // 2)]
            people = parents + [self.child(parents, rng) for _ in range(self.population - len(parents))]
        return self.built(min(people, key=score))

    def child(self, parents: list[tuple[float, ...]], rng: np.random.Generator) -> tuple[float, ...]:
        """Each gene from one of two parents, or drawn anew."""
        pair = [parents[i] for i in rng.choice(len(parents), 2, replace=False)]
        return tuple(
            float(rng.choice(values)) if rng.random() < self.mutation else pair[rng.integers(2)][i]
            for i, values in enumerate(GENES.values())
        )

    def built(self, genes: tuple[float, ...]) -> Architecture:
        layers, width, rate, batch = genes
        return replace(self.like, layers=int(layers), width=int(width), rate=rate, batch=int(batch))
