"""A hidden Markov model with exact evidence, filtering and smoothing."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.process import Floats, Status
from anystep.stepwise import Arrays, Moved, Stepwise


@dataclass(frozen=True, eq=False)
class Paths(Arrays):
    """z: (n, T) hidden states, -1 beyond the clock t: (n,)."""

    z: NDArray[np.int8]
    t: NDArray[np.int64]


class HiddenMarkov(Stepwise):
    """k hidden states, T observations of m symbols; matrices are random and not symmetric.

    A step draws the next hidden state from the transition and adds the log-likelihood of the observation to logw, so
    the target of a particle filter without a potential is the posterior over paths, and its evidence p(y).
    """

    logp = "mass"
    states = Paths

    def __init__(self, seed: int = 0, k: int = 3, m: int = 3, steps: int = 6, name: str = "hmm") -> None:
        if min(k, m, steps) < 1 or k > 100:
            raise UsageError(f"HiddenMarkov(k={k}, m={m}, steps={steps}): all are 1 or more, k at most 100.")
        self.k, self.steps, self.horizon, self.name = k, steps, steps, name
        u = lineage.uniforms(lineage.roots(seed, (), np.arange(2 * k + 1))[:, None], np.arange(max(k, m))[None, :])
        sharp = (0.05 + u) ** 3
        self.initial = _rows(sharp[:1, :k])[0]
        self.transition, self.emission = _rows(sharp[1 : k + 1, :k]), _rows(sharp[k + 1 :, :m])
        draws = lineage.uniforms(lineage.roots(seed, (1,), np.arange(steps)))
        self.observed = lineage.choose(np.tile(_rows(sharp[k + 1 :, :m]).mean(0), (steps, 1)), draws)

    def forward(self, rows: NDArray[np.int64], t: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Laws of the next hidden state (n, k), and likelihoods of the next observation under each (n, k)."""
        law = np.where((t == 0)[:, None], self.initial, self.transition[rows])
        return law, self.emission[:, self.observed[t]].T

    def begin(self, keys: Keys) -> Paths:
        return Paths(np.full((len(keys), self.steps), -1, dtype=np.int8), np.zeros(len(keys), dtype=np.int64))

    def advance(self, states: Paths, keys: Keys) -> Moved:
        rows = np.arange(len(states))
        law, likelihood = self.forward(states.z[rows, np.maximum(states.t - 1, 0)].astype(np.int64), states.t)
        new = lineage.choose(law, lineage.uniforms(keys, states.t))
        z = states.z.copy()
        z[rows, states.t] = new
        status = np.where(states.t + 1 == self.steps, np.int8(Status.DONE), np.int8(Status.LIVE))
        return Moved(Paths(z, states.t + 1), status, np.log(law[rows, new]), np.log(likelihood[rows, new]))

    def answers(self, states: Paths) -> tuple[Hashable, ...]:
        return tuple(tuple(z[:t]) for z, t in zip(states.z.tolist(), states.t.tolist(), strict=True))

    def filtering(self) -> tuple[Floats, float]:
        """p(z_t | y_1..t), shape (T, k), and log p(y), by the forward algorithm."""
        laws, evidence, law = [], 0.0, self.initial
        for y in self.observed:
            joint = law * self.emission[:, y]
            evidence += float(np.log(joint.sum()))
            laws.append(joint / joint.sum())
            law = laws[-1] @ self.transition
        return np.array(laws), evidence

    def evidence(self) -> float:
        """log p(y)."""
        return self.filtering()[1]

    def smoothing(self) -> Floats:
        """p(z_t | y_1..T), shape (T, k), by the forward and backward recursions."""
        laws, _ = self.filtering()
        back, smooth = np.ones(self.k), [laws[-1]]
        for law, y in zip(laws[-2::-1], self.observed[:0:-1], strict=True):
            back = self.transition @ (self.emission[:, y] * back)
            joint = law * back
            smooth.append(joint / joint.sum())
            back /= back.sum()
        return np.array(smooth[::-1])


def _rows(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum(-1, keepdims=True))
