"""From the prior to the posterior in steps: a particle filter on this is a sequential Monte Carlo sampler.

Source: Neal, "Annealed importance sampling" (2001); Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers"
(JRSS B 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anystep.bayes.mcmc.kernel import Kernel, begins, priced
from anystep.bayes.mcmc.walkers import Walkers
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost
from anystep.process import Status
from anystep.stepwise import Moved, Stepwise

Floats = NDArray[np.float64]


class Annealed(Stepwise):
    """Draws from the prior, heated step by step: each step weighs by likelihood^(rise) and moves by the kernel there.

    Weighted, the states that are done are draws of the posterior, and the mean weight is an unbiased estimate of the
    evidence, for any kernel that leaves its target invariant and any heats: `search.particle_filter(n=500)` on it is a
    sequential Monte Carlo sampler, and with `ess=0` annealed importance sampling.

    kernel: on a target with `log_likelihood`; HMC, MALA or a random walk. prior: exact draws of the (normalised) prior,
    from keys (n,) to (n, d). heats: powers of the likelihood, rising from 0 to 1. moves: transitions a step, 1 or more.
    Raises UsageError for anything else.
    """

    states = Walkers
    logp = "unknown"

    def __init__(self, kernel: Kernel, prior: Callable[[Keys], Floats], heats: Sequence[float], moves: int = 1) -> None:
        rising = len(heats) > 1 and all(a < b for a, b in zip(heats, heats[1:], strict=False))
        if not rising or heats[0] != 0 or heats[-1] != 1:
            raise UsageError(f"heats={tuple(heats)}: rising from 0 to 1; heats=np.linspace(0, 1, 11) ** 3.")
        if not isinstance(moves, int) or moves < 1:
            raise UsageError(f"Annealed(moves={moves!r}): transitions a step, 1 or more; moves=2.")
        if kernel.target.log_likelihood is None:
            raise UsageError("nothing to anneal: Target(log_prior, dimension, log_likelihood=...).")
        if not kernel.tempers:
            raise UsageError(
                f"{kernel.name} keeps to heat 1 or moves in parts; Annealed(HMC(target, 0.1), prior, heats)."
            )
        self.kernel, self.prior, self.moves = kernel, prior, moves
        self.heats = np.array(heats, dtype=np.float64)
        self.horizon, self.name = len(heats) - 1, f"Annealed({kernel.target.name})"

    def begin(self, keys: Keys) -> Walkers:
        position = np.asarray(self.prior(begins(keys)), dtype=np.float64)
        if position.shape != (len(keys), self.kernel.target.dimension):
            raise UsageError(f"the prior gave shape {position.shape}; it draws (n, {self.kernel.target.dimension}).")
        return Walkers.at(position, heat=0.0)

    def price(self, states: Walkers) -> Cost | list[Cost]:
        return priced(self.moves * self.kernel.units(), self.kernel.unknown(states))

    def once(self, states: Walkers) -> Cost:
        return Cost(calls=self.moves * self.kernel.units() + bool(self.kernel.unknown(states).any()))

    def advance(self, states: Walkers, keys: Keys) -> Moved:
        walkers = self.kernel.known(states)
        heat = self.heats[np.searchsorted(self.heats, walkers.heat, side="right")]
        logw = (heat - walkers.heat) * walkers.parts[:, 1]
        walkers = replace(walkers, heat=heat)
        for _ in range(self.moves):
            moved, _ = self.kernel.move(walkers, keys)
            walkers = moved.ticked()
        status = np.where(heat == 1, Status.DONE, Status.LIVE).astype(np.int8)
        return Moved(walkers, status, np.zeros(len(keys)), logw)

    def answers(self, states: Walkers) -> tuple[Hashable, ...]:
        return self.kernel.answers(states)
