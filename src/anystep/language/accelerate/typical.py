"""Typical acceptance: a guess is kept where the model finds it plausible, not only where the model would draw it.

A token passes if its probability is above min(epsilon, delta * exp(-entropy)): where the model is sure only the likely
ones do, where it is undecided many. Of the paths whose nodes all pass the longest wins, and of these the likeliest.
Source: Cai et al., "Medusa" (2024), section 2.3.1, with the released values epsilon 0.09 and delta 0.3; the threshold
is that of Hewitt et al., "Truncation Sampling as Language Model Desmoothing" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.language.accelerate.verify import Place, Verdict, Verifier
from anystep.language.engine.sampling import distribution


@dataclass(frozen=True)
class Typical(Verifier):
    """Keeps the longest path of plausible guesses; the token after it is drawn among the plausible ones.

    Preserves nothing: what was guessed and is plausible comes more often than the model would draw it, what is not
    plausible never comes, and the answer depends on the drafter. At
    temperature 0 it is the greedy walk. epsilon and delta in (0, 1]: probabilities above epsilon always pass; delta
    scales exp(-entropy in nats). The likeliest token always passes. Raises UsageError for values outside.
    """

    epsilon: float = 0.09
    delta: float = 0.3
    name = "typical"
    keeps = "nothing"

    def __post_init__(self) -> None:
        if not (0 < self.epsilon <= 1 and 0 < self.delta <= 1):
            raise UsageError(f"{self!r}: both are above 0 and at most 1, as in Typical(epsilon=0.09, delta=0.3).")

    def plausible(self, p: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which tokens of p (vocab,) pass."""
        some = p[p > 0]
        entropy = -(some * np.log(some)).sum()
        return np.asarray((p > min(self.epsilon, self.delta * np.exp(-entropy))) | (p == p.max()))

    def verify(self, places: Sequence[Place], temperature: float, top_p: float) -> list[Verdict]:
        return [self._one(place, temperature, top_p) for place in places]

    def _one(self, place: Place, temperature: float, top_p: float) -> Verdict:
        tree = place.draft.tree
        reached: list[tuple[tuple[int, ...], tuple[float, ...]]] = [((), ())]  # paths that pass, and their nodes' log p
        best = reached[0]
        masses: dict[int, NDArray[np.float64]] = {}
        while reached:
            best = max(reached, key=lambda each: sum(each[1]))  # each round is one node longer
            longer = []
            for path, logp in reached:
                node = path[-1] if path else -1
                p = masses[node] = distribution(place.logits[node + 1 :][:1], temperature, top_p)[0]
                passes, guesses = self.plausible(p), [(child, tree.tokens[child]) for child in tree.children(node)]
                longer += [((*path, c), (*logp, float(np.log(p[token])))) for c, token in guesses if passes[token]]
            reached = longer
        path, logp = best
        p = masses[path[-1] if path else -1]
        kept = np.where(self.plausible(p), p, 0.0)
        kept /= kept.sum()
        u = lineage.uniforms(place.key, [place.position + len(path)])
        last = int(lineage.choose(kept[None], u)[0])
        return Verdict(path, last, (*logp, float(np.log(kept[last]))))
