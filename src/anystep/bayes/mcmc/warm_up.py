"""Finding a kernel's step size and scale, before the draws that count.

Source: Hoffman and Gelman, "The No-U-Turn Sampler" (2014, arXiv 1111.4246) for dual averaging; the windows are those of
Carpenter et al., "Stan" (2017), with the covariance pooled over chains that run side by side.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.chains import transition
from anystep.bayes.mcmc.hamiltonian import HMC
from anystep.bayes.mcmc.kernel import Kernel, Scale
from anystep.bayes.mcmc.random_walk import RandomWalk
from anystep.bayes.mcmc.walkers import Walkers
from anystep.errors import UsageError
from anystep.ledger import Budget, Cost, Ledger, Limit

Floats = NDArray[np.float64]
Tunable = TypeVar("Tunable", HMC, RandomWalk)
FIRST, LAST, WINDOW = 0.075, 0.05, 25  # shares of the warm-up before the first window and after the last; a window
SHORTEST = 60  # transitions: the last part, with the scale as it will be, needs `WINDOW` of them to settle the step


@dataclass
class DualAveraging:
    """Moves log step so that the mean acceptance comes to `goal`."""

    step: float
    goal: float
    gamma: float = 0.05
    offset: float = 10.0
    kappa: float = 0.75

    def __post_init__(self) -> None:
        self.centre, self.error, self.turn, self.average = np.log(10 * self.step), 0.0, 0, 0.0

    def __call__(self, acceptance: float) -> float:
        """The next step to try, after this mean acceptance."""
        self.turn += 1
        weight = 1 / (self.turn + self.offset)
        self.error += weight * (self.goal - acceptance - self.error)
        log_step = self.centre - np.sqrt(self.turn) / self.gamma * self.error
        self.average += self.turn**-self.kappa * (log_step - self.average)
        return float(np.exp(log_step))


def warm_up(
    kernel: Tunable,
    transitions: int = 500,
    chains: int = 8,
    seed: int = 0,
    scale: Literal["dense", "diagonal", "fixed"] = "diagonal",
    goal: float | None = None,
    budget: Budget | None = None,
) -> tuple[Tunable, Walkers, Cost]:
    """A kernel of a fitting step size and scale, the walkers to go on from, and what finding them took.

    The kernel that comes back is fixed, so its chains leave the target invariant; the draws made here do not count.
    kernel: HMC or RandomWalk; its step size is where the search begins. scale: what of the draws' covariance, pooled
    over the chains, the moves are stretched by. goal: mean acceptance, .8 for trajectories, .574 for one step of them
    and .234 (.44 in one dimension) for a random walk by default.

    Raises UsageError for fewer than 60 transitions, no chain, a goal outside (0, 1), a kernel without a step size, or
    a budget that ends it.
    """
    if not isinstance(kernel, (HMC, RandomWalk)):
        raise UsageError(f"warm_up({getattr(kernel, 'name', kernel)}): HMC or RandomWalk has a step size to find.")
    if not isinstance(transitions, int) or transitions < SHORTEST or chains < 1:
        raise UsageError(
            f"warm_up(transitions={transitions!r}, chains={chains!r}): {SHORTEST} transitions or more, and a chain; "
            "warm_up(kernel, transitions=500, chains=8)."
        )
    if goal is not None and not 0 < goal < 1:
        raise UsageError(f"warm_up(goal={goal!r}): a mean acceptance in (0, 1); goal=0.8.")
    limit = Limit(Ledger(budget or Budget(), reserve=0.0), kernel.name)
    keys = lineage.roots(seed, (), np.arange(chains))
    walkers, kernel = kernel.start(keys, limit).states, copy(kernel)
    seek, ends = DualAveraging(kernel.step_size, goal or usual(kernel)), windows(transitions)
    seen: list[Floats] = []
    for turn in range(transitions):
        found = transition(kernel, walkers, keys, limit)
        if found is None:
            raise UsageError(f"the budget's {limit.ledger.refused} ran out in the warm-up; raise it, or ask for less.")
        walkers, info = found
        kernel.step_size = seek(float(info.acceptance.mean()))
        if ends[0] <= turn < ends[-1] and scale != "fixed":
            seen.append(walkers.position)
            if turn + 1 in ends[1:]:
                kernel.scale = shaped(np.concatenate(seen), scale)
                seen, seek = [], DualAveraging(kernel.step_size, seek.goal)
    kernel.step_size = float(np.exp(seek.average))
    return kernel, walkers, limit.used


def usual(kernel: Kernel) -> float:
    """The mean acceptance that costs least for an independent draw, as theory in high dimension has it."""
    if isinstance(kernel, HMC):
        return 0.8 if kernel.steps > 1 else 0.574
    return 0.44 if kernel.target.dimension == 1 else 0.234


def windows(transitions: int) -> list[int]:
    """Where the windows begin and end: each twice as long as the one before, the last with all that is left."""
    at, last = int(FIRST * transitions), transitions - max(WINDOW, int(LAST * transitions))
    ends, size = [at], min(WINDOW, last - at)
    while at + size <= last:
        end = last if at + 3 * size > last else at + size
        ends.append(end)
        at, size = end, 2 * size
    return ends


def shaped(draws: Floats, scale: str) -> Scale:
    """The draws' covariance, drawn a little towards a small round one as few draws deserve, as a scale."""
    n = len(draws)
    keep, small = n / (n + 5), 1e-3 * 5 / (n + 5)
    if scale == "diagonal":
        return Scale(np.sqrt(keep * draws.var(0, ddof=1) + small))
    covariance = np.atleast_2d(np.cov(draws.T))
    return Scale(np.linalg.cholesky(keep * covariance + small * np.eye(len(covariance))))
