"""Parallel tempering: chains at several heats, which exchange what they hold.

Source: Geyer (1991); Swendsen and Wang, "Replica Monte Carlo simulation of spin glasses" (PRL 1986).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.mcmc.kernel import Kernel, priced
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ladder(Walkers):
    """n chains at heat 1, each with m hotter ones behind it. hot_position: (n, m, d); hot_parts: (n, m, 2); hot_slopes:
    (n, m, 2, d). exchanged: (n, m), how often each rung has exchanged with the next colder one."""

    hot_position: Floats
    hot_parts: Floats
    hot_slopes: Floats
    exchanged: NDArray[np.int64]

    def rung(self, at: int, heat: float) -> Walkers:
        """The chains at one rung, 0 the coldest, as walkers of their own."""
        cold = Walkers(**{f.name: getattr(self, f.name) for f in fields(Walkers)})
        if at == 0:
            return cold
        held = self.hot_position[:, at - 1], self.hot_parts[:, at - 1], self.hot_slopes[:, at - 1]
        return replace(cold, position=held[0], parts=held[1], slopes=held[2], heat=np.full(len(self), heat))

    @classmethod
    def of(cls, rungs: Sequence[Walkers], exchanged: NDArray[np.int64]) -> Self:
        cold, hot = rungs[0], rungs[1:]
        position, parts, slopes = (
            np.stack([getattr(w, name) for w in hot], 1) for name in ("position", "parts", "slopes")
        )
        held = {f.name: getattr(cold, f.name) for f in fields(Walkers)}
        return cls(**held, hot_position=position, hot_parts=parts, hot_slopes=slopes, exchanged=exchanged)


class ParallelTempering(Kernel):
    """One transition moves every rung by its kernel, then lets neighbours exchange, even pairs and odd in turn.

    Leaves the joint law of all rungs invariant exactly, and so the target at the coldest, which is what it answers. It
    crosses between modes that the likelihood separates and the prior does not.

    kernels: one for all rungs, or one a rung, coldest first; each HMC, MALA or a random walk.
    heats: powers of the likelihood, from 1 down, the last at least 0; (1, 0.5, 0.25, 0.1). A transition costs what its
    kernels' do. Raises UsageError for a target without `log_likelihood`, which has nothing to temper, and for heats
    that do not fall from 1.
    """

    states: ClassVar[type[Walkers]] = Ladder
    tempers = False

    def __init__(self, kernels: Kernel | Sequence[Kernel], heats: Sequence[float]) -> None:
        held = [kernels] * len(heats) if isinstance(kernels, Kernel) else list(kernels)
        falling = len(heats) > 1 and heats[0] == 1 and all(a > b >= 0 for a, b in zip(heats, heats[1:], strict=False))
        if not falling:
            raise UsageError(f"heats={tuple(heats)}: two or more that fall from 1; heats=(1, 0.5, 0.25, 0.1).")
        if len(held) != len(heats) or len({k.target for k in held}) != 1:
            raise UsageError(f"{len(held)} kernels for {len(heats)} heats: one for all, or one a rung, of one target.")
        if not all(k.tempers for k in held):
            raise UsageError(
                "a rung's kernel is HMC, MALA or a random walk: ParallelTempering(HMC(target, 0.1), heats)."
            )
        if held[0].target.log_likelihood is None:
            raise UsageError("nothing to temper: Target(log_prior, dimension, log_likelihood=...).")
        super().__init__(held[0].target, start=held[0].beginning)
        self.kernels, self.heats = held, tuple(map(float, heats))
        self.slopes = any(k.slopes for k in held)

    def units(self) -> int:
        return sum(k.units() for k in self.kernels)

    def begin(self, keys: Keys) -> Ladder:
        starts = [k.begin(lineage.children(keys, 1, at)) for at, k in enumerate(self.kernels)]
        return Ladder.of(starts, np.zeros((len(keys), len(self.heats) - 1), dtype=np.int64))

    def _missing(self, ladder: Ladder) -> NDArray[np.int64]:
        """How many rungs of each must be evaluated where they stand."""
        rungs = [k.unknown(ladder.rung(at, h)) for at, (k, h) in enumerate(zip(self.kernels, self.heats, strict=True))]
        return np.sum(rungs, 0)

    def unknown(self, walkers: Walkers) -> NDArray[np.bool_]:
        return np.asarray(self._missing(_ladder(walkers)) > 0)

    def price(self, states: Walkers) -> Cost | list[Cost]:
        return priced(self.units(), self._missing(_ladder(states)))

    def once(self, states: Walkers) -> Cost:
        ladder = _ladder(states)
        asked = [bool(k.unknown(ladder.rung(at, h)).any()) for at, (k, h) in enumerate(self._rungs())]
        return Cost(calls=self.units() + sum(asked))

    def _rungs(self) -> list[tuple[Kernel, float]]:
        return list(zip(self.kernels, self.heats, strict=True))

    def known(self, walkers: Walkers) -> Ladder:
        ladder = _ladder(walkers)
        return Ladder.of([k.known(ladder.rung(at, h)) for at, (k, h) in enumerate(self._rungs())], ladder.exchanged)

    def move(self, walkers: Walkers, keys: Keys) -> tuple[Ladder, Info]:
        ladder, rungs, told = _ladder(walkers), list[Walkers](), list[Info]()
        for at, (kernel, heat) in enumerate(self._rungs()):
            moved, info = kernel.move(ladder.rung(at, heat), lineage.children(keys, 1, at))
            rungs.append(moved)
            told.append(info)
        exchanged = ladder.exchanged.copy()
        u = lineage.uniforms(keys[:, None], walkers.clock[:, None], np.arange(len(rungs) - 1))
        for at in range(len(rungs) - 1):
            swaps = self._swaps(rungs[at], rungs[at + 1], u[:, at]) & ((walkers.clock + at) % 2 == 0)
            rungs[at], rungs[at + 1] = _exchange(rungs[at], rungs[at + 1], swaps)
            exchanged[:, at] += swaps
        return Ladder.of(rungs, exchanged), told[0]

    @staticmethod
    def _swaps(cold: Walkers, hot: Walkers, u: Floats) -> NDArray[np.bool_]:
        """Which pairs exchange, by the ratio of their joint densities after and before."""
        with np.errstate(invalid="ignore"):
            after = cold.tempered(hot.heat) + hot.tempered(cold.heat)
            log_ratio = after - cold.log_density - hot.log_density
        return np.asarray(np.log1p(-u) < np.where(np.isnan(log_ratio), -np.inf, log_ratio))


def _ladder(walkers: Walkers) -> Ladder:
    if not isinstance(walkers, Ladder):
        raise UsageError("ParallelTempering moves its own ladders: sample(tempering, draws=1000), not other walkers.")
    return walkers


def _exchange(cold: Walkers, hot: Walkers, swaps: NDArray[np.bool_]) -> tuple[Walkers, Walkers]:
    """Both rungs with what they hold exchanged where told; heats and clocks stay."""
    pairs = []
    for name in ("position", "parts", "slopes"):
        a, b = getattr(cold, name), getattr(hot, name)
        where = swaps.reshape(-1, *[1] * (a.ndim - 1))
        pairs.append((name, np.where(where, b, a), np.where(where, a, b)))
    return (
        replace(cold, **{name: a for name, a, _ in pairs}),
        replace(hot, **{name: b for name, _, b in pairs}),
    )
