"""A reward whose value is the probability that a state is right: fitted to labelled states, paid like its source."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.calibrate.maps import How, Map, fitted
from anystep.calibrate.reliability import Groups, Reliability, reliability
from anystep.calibrate.verdicts import scored
from anystep.errors import UsageError
from anystep.ledger import Budget, Cost, Limit
from anystep.process import Floats, Reward, Scored


@dataclass(frozen=True)
class Calibrated(Reward):
    """`map` of another reward's value, in [0, 1]. A run that has paid for the reward has paid for this one.

    Its value is the share of right ones among states like those it was fitted on: drawn as those were, and no further
    along or less far. Of the best of many states, chosen by it, it says nothing reliable: see `calibrate.winner`.
    """

    reward: Reward
    map: Map

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.reward.name}.calibrated"

    def source(self) -> Reward:
        return self.reward.source()

    def read(self, values: Floats) -> Floats:
        return self.map(self.reward.read(values))

    def __call__(self, states: Any, limit: Limit) -> Scored:
        found = self.source()(states, limit)
        return Scored(self.read(found.values), found.cost)

    def forget(self) -> None:
        self.reward.forget()

    def warm(self, states: Any) -> None:
        self.reward.warm(states)


@dataclass(frozen=True)
class Fit:
    """A calibrated reward with the evidence for it: `raw` of the scores as they were (None where they are no
    probabilities), `held_out` of each state's probability by maps that were fitted on the other problems."""

    reward: Calibrated
    held_out: Reliability
    raw: Reliability | None
    cost: Cost

    def __str__(self) -> str:
        before = "" if self.raw is None else f", before {self.raw.ece}"
        said = f"by chance {self.held_out.floor.mean:.3f}{before}"
        return f"{self.reward.map!r} on {self.held_out.n} states: held-out ECE {self.held_out.ece} ({said})"


def calibrated(reward: Reward, scores: ArrayLike, labels: ArrayLike, how: How = "platt") -> Calibrated:
    """`reward` with the map `how` fitted on its own scores (n,) of states whose labels (n,), 0 or 1, are known.

    Preserves the ranking ("isotonic" may tie); as a potential (`.log_odds()`) the target is p(x) times the odds that x
    is right. Raises UsageError with fewer than 10 right or 10 wrong labels. `fit` scores the states itself and says how
    well the map holds on states it has not seen.
    """
    return Calibrated(reward, fitted(how, scores, labels))


def fit(
    reward: Reward,
    states: Any,
    labels: ArrayLike,
    how: How = "platt",
    problems: Groups | None = None,
    folds: int = 5,
    budget: Budget | None = None,
    seed: int = 0,
) -> Fit:
    """Score labelled states, fit the map `how` on all of them, and measure it by cross-fitting over problems.

    states: what the reward scores, with labels (n,) of 0 and 1; they should come from the model that the reward is to
    judge. problems: what each state is an answer to, by default its prompt; a problem is never in two folds. budget:
    what scoring may spend; states it refused are left out. Raises UsageError for too few labels.
    """
    y = np.asarray(labels, dtype=np.float64)
    if len(states) != len(y):
        raise UsageError(f"fit: {len(states)} states and {len(y)} labels; give one label a state, 1 right, 0 wrong.")
    values, cost, _ = scored([reward] * len(states), states, budget)
    own = list(states.prompts() if problems is None else problems)
    whole = fitted(how, values, y)
    bounded = reward.range[0] >= 0 and reward.range[1] <= 1
    raw = reliability(values, y, groups=own) if bounded else None
    held = reliability(crossed(how, values, y, own, folds, seed), y, groups=own)
    return Fit(Calibrated(reward, whole), held, raw, cost)


def crossed(
    how: str, scores: ArrayLike, labels: ArrayLike, problems: Sequence[Hashable], folds: int, seed: int
) -> Floats:
    """Each item's probability by a map fitted on the other folds; problems are dealt to folds at random."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    place = dealt(problems, folds, seed)
    found = np.full(len(x), np.nan)
    for fold in range(folds):
        out = place == fold
        if out.any():
            found[out] = fitted(how, x[~out], y[~out])(x[out])
    return found


def dealt(problems: Sequence[Hashable], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each item, the same for all items of a problem. Raises UsageError for fewer problems than folds."""
    known: dict[Hashable, int] = {}
    own = np.array([known.setdefault(p, len(known)) for p in problems], dtype=np.int64)
    if isinstance(folds, bool) or folds < 2 or len(known) < folds:
        raise UsageError(
            f"folds={folds} and {len(known)} problems: cross-fitting needs 2 folds or more, and as many problems."
        )
    return np.asarray(np.random.default_rng(seed).permutation(len(known)) % folds)[own]
