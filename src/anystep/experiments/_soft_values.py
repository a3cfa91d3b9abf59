"""What soft value decoding does with finitely many candidates, computed and not sampled, on masked processes whose
every path is enumerated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from anystep.diffusion.masked import Lattice
from anystep.process import Floats

Tokens = tuple[int, ...]
_AT, _SHARE = np.polynomial.legendre.leggauss(200)
KNOTS = (_AT + 1) / 2, _SHARE / 2


def goes_on(p: Floats, worth: Floats, branch: int) -> Floats:
    """(k,) the law of the child that goes on when `branch` are drawn from p and one is chosen by its worth: the mean of
    w_i N_i / sum of w_j N_j over multinomial counts N.

    With 1 / S as the integral of exp(-s S) the mean is branch p_i w_i times the integral of exp(-s w_i) (sum of
    p_j exp(-s w_j))^(branch - 1), taken here by Gauss and Legendre's rule.
    """
    u, share = KNOTS
    w = worth / (p @ worth)
    s, slope = u / (1 - u), 1 / (1 - u) ** 2
    falls = np.exp(-np.outer(s, w))
    whole = (share * slope)[:, None] * falls * ((falls @ p) ** (branch - 1))[:, None]
    return np.asarray(branch * p * w * whole.sum(0))


def decoded(lattice: Lattice, value: Mapping[Tokens, float], temperature: float, branch: int) -> dict[Tokens, float]:
    """The law over outputs of soft value decoding with `branch` candidates a pass. value: of every partial sequence."""
    level: dict[Tokens, float] = dict(lattice.levels[0])
    for _ in range(lattice.process.passes):
        following: dict[Tokens, float] = {}
        for tokens, mass in level.items():
            children, p = zip(*lattice.onward[tokens], strict=True)
            worth = np.exp(np.array([value[child] for child in children]) / temperature)
            for child, share in zip(children, goes_on(np.array(p), worth, branch).tolist(), strict=True):
                following[child] = following.get(child, 0.0) + mass * share
        level = following
    return level


def soft_values(lattice: Lattice, reward: Callable[[Tokens], float], temperature: float) -> dict[Tokens, float]:
    """temperature * log E[exp(reward / temperature)] behind every partial sequence."""
    found: dict[Tokens, float] = {x: float(np.exp(reward(x) / temperature)) for x in lattice.law}
    for level in reversed(lattice.levels[:-1]):
        for tokens in level:
            found[tokens] = sum(p * found[child] for child, p in lattice.onward[tokens])
    return {tokens: temperature * float(np.log(v)) for tokens, v in found.items()}


def apart(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    """Total variation."""
    return sum(abs(one.get(x, 0.0) - other.get(x, 0.0)) for x in {*one, *other}) / 2
