"""Make an objective large: what it was at every step, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anystep.averaged import averaged
from anystep.bayes.vi.expectations import Objective
from anystep.bayes.vi.machine import Spent, estimated, seeded
from anystep.errors import UsageError
from anystep.ledger import Budget, Ledger


@dataclass(frozen=True)
class Fit:
    """history: the objective's estimate at each step, before its update. ledger: evaluations, by program; `refused`
    says what ran out where the budget ended it."""

    history: Tensor
    ledger: Ledger


@dataclass(frozen=True)
class Rates:
    updates: int
    batch: int
    rate: float
    average: float


def fit(
    objective: Objective,
    parameters: nn.Module | Mapping[str, nn.Parameter],
    steps: int,
    seed: int = 0,
    draws: int = 16,
    rate: float = 0.02,
    average: float = 0.99,
    budget: Budget | None = None,
) -> Fit:
    """Ascend by `averaged`, the loop that trains all small networks here, and leave the parameters' running average.

    parameters: a module, or a mapping of names to parameters, that the objective's programs use; changed in place.
    draws: independent ones a step. average: of the running one. budget: evaluations or seconds; a step that it refuses
    is not taken, and the parameters are left as they are, without averaging. Raises UsageError for no steps, and where
    no parameter has a part in the objective.
    """
    if not isinstance(steps, int) or steps < 1:
        raise UsageError(f"fit(steps={steps!r}): how many updates, 1 or more; fit(objective, parameters, steps=1000).")
    net = parameters if isinstance(parameters, nn.Module) else nn.ParameterDict(_all_parameters(parameters))
    ledger = Ledger(budget or Budget(), reserve=0.0)
    history: list[Tensor] = []

    def loss() -> Tensor:
        value = estimated(objective, draws, ledger).mean()
        if not value.requires_grad:
            raise UsageError("fit(objective, parameters): nothing of the objective depends on a parameter.")
        history.append(value.detach())
        return -value

    ledger.begin()
    with seeded(seed), suppress(Spent):
        averaged(net, Rates(steps, draws, rate, average), loss, decay=0.0)
    ledger.end()
    return Fit(torch.stack(history) if history else torch.zeros(0), ledger)


def _all_parameters(parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
    for name, value in parameters.items():
        if not isinstance(value, nn.Parameter):
            raise UsageError(f"fit(parameters={{{name!r}: ...}}): wrap it, nn.Parameter(torch.zeros(2)).")
    return parameters
