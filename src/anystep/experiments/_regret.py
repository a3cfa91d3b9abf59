"""A simulated policy over answers and a reward that is wrong about the rare ones: who submits the right answer?

The right answer has probability 1/C. As many wrong ones as could ever be submitted are each more probable, so that a
vote never gets there. The rest of the mass lies on very many rare wrong answers, a few of which every larger sample
finds, and some of which the reward likes better than the right one, so that best of n gets worse with n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anystep.population import Decision, Population
from anystep.process import Floats
from anystep.testing.checks_decision import population

RIGHT = 0


@dataclass(frozen=True)
class Instance:
    """probabilities and rewards of answers, (m,); answer 0 is right, with true reward 1, and all others have 0."""

    p: Floats
    rewards: Floats

    @property
    def coverage(self) -> float:
        """C: one over the right answer's probability."""
        return float(1 / self.p[RIGHT])

    @property
    def error(self) -> float:
        """The reward's mean squared error under the policy."""
        true = np.zeros(len(self.p))
        true[RIGHT] = 1.0
        return float(self.p @ (self.rewards - true) ** 2)

    def enough(self, k: int) -> float:
        """The theory's number of samples, 16 C log(k C / error)."""
        return float(16 * self.coverage * np.log(k * self.coverage / self.error))

    def threshold(self) -> float:
        """The theory's, 3 / (4 C)."""
        return 0.75 / self.coverage

    def sampled(self, n: int, rng: np.random.Generator) -> Population:
        drawn = rng.choice(len(self.p), n, p=self.p)
        return population(drawn.tolist(), self.rewards[drawn].tolist())


def instance(popular: int = 8, right: float = 0.05, rare: float = 0.06, kinds: int = 4_000) -> Instance:
    """`popular` wrong answers that are each a little more probable than the right one, `kinds` rare ones that share
    `rare`, of which one in three is over-scored."""
    wrong = np.full(popular, (1 - right - rare) / popular)
    p = np.concatenate([[right], wrong, np.full(kinds, rare / kinds)])
    rewards = np.concatenate([[0.9], np.linspace(0.4, 0.8, popular), np.where(np.arange(kinds) % 3 == 0, 1.0, 0.3)])
    return Instance(p, rewards)


def regret(where: Instance, decision: Decision, n: int, runs: int, seed: int) -> Floats:
    """1 where the right answer is not among those submitted, else 0, (runs,)."""
    rng = np.random.default_rng([seed, n])
    missed = np.zeros(runs)
    for i in range(runs):
        sample = where.sampled(n, rng)
        missed[i] = RIGHT not in [(sample.answers or ())[row] for row in decision(sample).submitted]
    return missed
