"""How far estimates of an answer's probability are off, on laws over paths that can be written down.

An estimate's squared error against whether the answer is right is what the sampling adds (the estimation error) and
what the model itself gets wrong: E (found - right)^2 = E (found - p)^2 + (p - right)^2, and an estimate with a bias has
the product of both beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anystep.population import Population
from anystep.process import Floats
from anystep.search import decide
from anystep.testing.checks_decision import population

TINY = 1e-300


@dataclass(frozen=True)
class Law:
    """Paths with their probabilities p (m,), and the answer of each (m,)."""

    p: Floats
    answers: tuple[str, ...]

    def of(self, answer: str) -> NDArray[np.bool_]:
        return np.array([a == answer for a in self.answers])

    def share(self, answer: str) -> float:
        """The answer's probability."""
        return float(self.p[self.of(answer)].sum())

    def drawn(self, n: int, rng: np.random.Generator) -> Population:
        """n sampled paths as a population with texts and log-probabilities."""
        paths = rng.choice(len(self.p), n, p=self.p)
        found = population([self.answers[i] for i in paths])
        return replace(found, texts=tuple(str(i) for i in paths), logp=np.log(self.p[paths]))

    def counts(self, n: int, times: int, rng: np.random.Generator) -> Floats:
        """How often each path is drawn in `times` samples of n, (times, m)."""
        return np.asarray(rng.multinomial(n, self.p, times), dtype=np.float64)


TOY = Law(np.array([0.22, 0.14, 0.10, 0.18, 0.12, 0.09, 0.08, 0.07]), tuple("aaabbcca"))


def exact(law: Law, answer: str, n: int) -> tuple[float, float]:
    """Mean and variance of perplexity consistency's estimate from n samples, in closed form."""
    p = law.p[law.of(answer)]
    unseen = (1 - p) ** n
    both = np.outer(p, p) * ((1 - np.add.outer(p, p)) ** n - np.outer(unseen, unseen))
    np.fill_diagonal(both, 0.0)
    return float((p * (1 - unseen)).sum()), float((p**2 * unseen * (1 - unseen)).sum() + both.sum())


def squared_error(law: Law, answer: str, n: int) -> float:
    """The expected squared error of that estimate."""
    mean, variance = exact(law, answer, n)
    return (law.share(answer) - mean) ** 2 + variance


def estimated(law: Law, answer: str, n: int, times: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Three estimates of the answer's probability from the same samples, each (times,): the share of the votes, the sum
    of its distinct paths' probabilities, and its likeliest sampled path's."""
    counts, mine = law.counts(n, times, rng), law.of(answer)
    seen = (counts > 0) & mine
    return {
        "vote": counts[:, mine].sum(1) / n,
        "perplexity consistency": seen @ law.p,
        "perplexity": np.where(seen, law.p, 0.0).max(1),
    }


def agrees(law: Law, answer: str, n: int, times: int, rng: np.random.Generator) -> float:
    """The largest gap between the decision's own estimate and the sum over distinct paths, on `times` samples."""
    worst = 0.0
    for _ in range(times):
        found = law.drawn(n, rng)
        rows = zip(found.texts or (), found.logp.tolist(), found.answers or (), strict=True)
        by_hand = sum({text: float(np.exp(logp)) for text, logp, said in rows if said == answer}.values())
        worst = max(worst, abs(float(np.exp(decide.estimates(found).get(answer, -np.inf))) - by_hand))
    return worst


def slope(x: Floats, y: Floats) -> float:
    """Least-squares slope of log y over x."""
    return float(np.polyfit(x, np.log(np.maximum(y, TINY)), 1)[0])
