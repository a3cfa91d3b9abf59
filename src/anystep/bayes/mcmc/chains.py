"""Running chains side by side, and what can be said of their draws: effective samples, split R-hat, their error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.kernel import Kernel
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.errors import ModelError, UsageError
from anystep.keys import Keys
from anystep.ledger import Budget, Cost, Ledger, Limit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chains:
    """Draws of m chains. position: (m, draws, d). log_density, acceptance: (m, draws). divergent: (m, draws). walkers:
    where the chains stand, to go on from. cost: of all of it. stopped_because: None, or the figure that ran out."""

    position: Floats
    log_density: Floats
    acceptance: Floats
    divergent: NDArray[np.bool_]
    walkers: Walkers
    cost: Cost
    stopped_because: str | None

    def flat(self) -> Floats:
        """All draws, (m * draws, d)."""
        return self.position.reshape(-1, self.position.shape[-1])

    def mean(self) -> Floats:
        return np.asarray(self.flat().mean(0))

    def covariance(self) -> Floats:
        return np.atleast_2d(np.cov(self.flat().T))

    def ess(self, of: Floats | None = None, method: str = "bulk") -> Floats:
        """Effective samples of each coordinate, or of functions `of` the draws, (m, draws, k).

        method: as arviz names them: "bulk", "tail", "mean", "sd", "median".
        """
        return np.array([_statistics().ess(x, chain_axis=0, draw_axis=1, method=method) for x in self._each(of)])

    def rhat(self, of: Floats | None = None) -> Floats:
        """Split R-hat, rank-normalised: near 1 where the chains agree."""
        return np.array([_statistics().rhat(x, chain_axis=0, draw_axis=1) for x in self._each(of)])

    def mcse(self, of: Floats | None = None) -> Floats:
        """The Monte Carlo standard error of the means."""
        values = self.position if of is None else of
        return np.asarray(values.reshape(-1, values.shape[-1]).std(0, ddof=1) / np.sqrt(self.ess(of, "mean")))

    def _each(self, of: Floats | None) -> Floats:
        values = self.position if of is None else np.asarray(of, dtype=np.float64)
        if values.ndim != 3 or values.shape[:2] != self.position.shape[:2]:
            raise UsageError(f"functions of the draws have shape (chains, draws, k), not {values.shape}.")
        return np.moveaxis(values, -1, 0)


def sample(
    kernel: Kernel,
    draws: int,
    chains: int | Walkers = 4,
    seed: int = 0,
    burn: int = 0,
    thin: int = 1,
    budget: Budget | None = None,
) -> Chains:
    """Run chains of `kernel` side by side and keep their draws.

    draws: kept of each chain. chains: how many, or the walkers to go on from. burn: transitions before the first that
    is kept. thin: transitions for each that is kept. budget: what may be spent; a run that it ends keeps the draws
    until then, says so, and forgets the transition under way. Draws depend on the seed, the chain's number and its
    clock alone: the first four of eight chains are the four that would have run by themselves.

    Raises UsageError for sizes below 1 and for a budget that buys no draw; ModelError where the target has zero density
    at a chain's beginning and after its first move.
    """
    number = len(chains) if isinstance(chains, Walkers) else chains
    sizes = {"draws": draws, "thin": thin, "burn": burn + 1, "chains": number}
    if bad := [name for name, size in sizes.items() if not isinstance(size, int) or size < 1]:
        raise UsageError(f"sample({bad[0]}={sizes[bad[0]]!r}): sample(kernel, draws=1000, chains=4, burn=500).")
    limit = Limit(Ledger(budget or Budget(), reserve=0.0), kernel.name)
    keys = lineage.roots(seed, (), np.arange(number))
    walkers = chains if isinstance(chains, Walkers) else kernel.start(keys, limit).states
    kept: list[tuple[Walkers, Info]] = []
    for turn in range(1, burn + draws * thin + 1):
        found = transition(kernel, walkers, keys, limit)
        if found is None:
            break
        walkers, info = found
        if turn == 1 and np.isneginf(walkers.log_density).any():
            raise ModelError(f"{kernel.name}: a chain begins where the density is zero; give start=points inside it.")
        if turn > burn and (turn - burn) % thin == 0:
            kept.append((walkers, info))
    if not kept:
        raise UsageError(f"the budget's {limit.ledger.refused} ran out before the first draw; raise it, or lower burn.")
    return _gathered(kept, walkers, limit)


def transition(kernel: Kernel, walkers: Walkers, keys: Keys, limit: Limit) -> tuple[Walkers, Info] | None:
    """One transition of every chain, in as many units of work as each needs; None where the limit refused one."""
    rows, told = np.arange(len(walkers)), None
    while len(rows):
        moving = walkers.take(rows)
        if not limit.pay(rows, each=kernel.price(moving), once=kernel.once(moving)).all():
            return None
        after, info = kernel.move(kernel.known(moving), keys[rows])
        walkers = after.ticked() if len(rows) == len(walkers) else walkers.put(rows, after.ticked())
        told = info if told is None else _put(told, rows, info)
        rows = rows[~kernel.boundary(after)]
    assert told is not None
    return walkers, told


def _put(held: Info, rows: NDArray[np.int64], info: Info) -> Info:
    copies = {name: getattr(held, name).copy() for name in ("acceptance", "accepted", "divergent", "energy_error")}
    for name, copy in copies.items():
        copy[rows] = getattr(info, name)
    return Info(**copies)


def _gathered(kept: list[tuple[Walkers, Info]], walkers: Walkers, limit: Limit) -> Chains:
    def side_by_side(values: list[Any]) -> Any:
        return np.stack(values, 1)

    return Chains(
        side_by_side([w.position for w, _ in kept]),
        side_by_side([w.log_density for w, _ in kept]),
        side_by_side([i.acceptance for _, i in kept]),
        side_by_side([i.divergent for _, i in kept]),
        walkers,
        limit.used,
        limit.ledger.refused,
    )


def _statistics() -> Any:
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise UsageError('effective samples and R-hat come from arviz: pip install "anystep[bayes]".') from error
    return array_stats
