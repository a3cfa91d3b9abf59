"""Rewards and potentials on what a state is expected to become: functions of its predicted clean thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from anystep.errors import UsageError
from anystep.ledger import FREE, Cost, Limit
from anystep.process import Floats, Potential, Reward, Scored


@dataclass(frozen=True)
class OnClean(Reward):
    """function(clean) of each state's prediction, (n, *shape) -> (n,); of a finished state, of the thing itself.

    The prediction is the state's own, so reading it costs nothing; each: what one row of `function` costs, where it is
    a network of its own. Equal where function and name are. Not differentiated: any black box will do.
    """

    function: Callable[[Tensor], Any]
    name: str
    range: tuple[float, float] = (0.0, 1.0)
    each: Cost = FREE

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(_on_clean(self.function, self.each, states, limit), limit.used)


@dataclass(frozen=True)
class PotentialOnClean(Potential):
    """The same in log units: what tilts a target p(x) exp(potential(x)), and steers before."""

    function: Callable[[Tensor], Any]
    name: str
    each: Cost = FREE

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(_on_clean(self.function, self.each, states, limit), limit.used)


def _on_clean(function: Callable[[Tensor], Any], each: Cost, states: Any, limit: Limit) -> Floats:
    values = np.full(len(states), np.nan)
    paid = np.flatnonzero(states.known)  # nothing is predicted yet behind the others, so they have no value
    if each != FREE:
        paid = paid[limit.pay(paid, each, Cost(calls=1))]
    if len(paid):
        said = function(states.clean[paid])
        found = np.asarray(said.detach().cpu() if isinstance(said, Tensor) else said, dtype=np.float64)
        if found.shape != (len(paid),):
            raise UsageError(
                f"on_clean(function): one number a row, so {(len(paid),)} and not {found.shape}; "
                'on_clean(lambda x: x.flatten(1).mean(1), "bright").'
            )
        values[paid] = found
    return values


def on_clean(function: Callable[[Tensor], Any], name: str, range: tuple[float, float] = (0.0, 1.0)) -> Reward:
    """A reward that reads predictions with a plain function."""
    return OnClean(function, name, range)


def potential_on_clean(function: Callable[[Tensor], Any], name: str) -> Potential:
    """A potential that reads predictions with a plain function, in log units."""
    return PotentialOnClean(function, name)
