"""Objectives: generator functions over expectations, and the machine that makes unbiased gradients of them.

    def elbo():
        trace, q = yield from simulate(guide)
        p = yield from density(model, trace)
        return p - q

An objective runs once, forwards, on a batch; then its sites are closed backwards, each by its strategy, as if every one
had been handed the rest of the program. What comes out is one number a draw, whose mean is the expectation and whose
derivative's mean is the expectation's derivative. First derivatives only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from anystep.bayes.vi.expectations import Begin, Copies, Draw, Estimate, Expect, Going, Objective
from anystep.bayes.vi.strategies import Site
from anystep.errors import AnystepError, UsageError
from anystep.ledger import Cost, Ledger


class Spent(AnystepError):
    """The budget refused the next run of a program."""


def estimate(objective: Objective, draws: int = 1, seed: int = 0, ledger: Ledger | None = None) -> Tensor:
    """One number a draw, shape (draws,): their mean is unbiased for the objective, and its `backward` for the gradient.

    draws: independent Monte Carlo draws, 1 or more. seed: of all its randomness; torch's global generator is left as it
    was (while it runs, other threads that draw from that one would disturb it). ledger: pays one evaluation for each
    row that a program is run on, branches and copies included; raises Spent before a run it refuses.
    """
    if not isinstance(draws, int) or draws < 1:
        raise UsageError(f"estimate(draws={draws!r}): how many independent draws, 1 or more; draws=64.")
    with seeded(seed):
        return estimated(objective, draws, ledger)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch.distributions draw from the global generator: seed it, and put it back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def estimated(objective: Objective, draws: int, ledger: Ledger | None = None) -> Tensor:
    """`estimate` on the generator as it stands."""
    return Machine(draws, ledger).expect(objective).value


class Machine:
    """Runs an objective and keeps its open sites.

    world: the sizes of the axes before the event, from the last to the first: the draws, then branches and copies.
    shape: what a site's values must have of them; branches share what does not depend on them.
    """

    def __init__(self, draws: int, ledger: Ledger | None) -> None:
        self.draws, self.ledger = draws, ledger
        self.world, self.full = [draws], [True]
        self.shape, self.rows = Size([draws]), draws
        self.sites: list[Site] = []
        self.copying = 0  # copies under way in the innermost expectation
        self.fresh = count()

    def run(self, going: Going) -> Any:
        answer: Any = None
        while True:
            try:
                effect = going.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(effect, Draw):
                answer = self.draw(effect)
            elif isinstance(effect, Begin):
                self.pay(self.rows, effect.owner)
                answer = None
            elif isinstance(effect, Expect):
                answer = self.expect(effect.objective)
            elif isinstance(effect, Copies):
                answer = self.copies(effect)
            else:
                raise UsageError(
                    f"An objective yields Expect, Copies or Draw, not {effect!r:.60}; a program's run is "
                    "trace, log_density = yield from simulate(program)."
                )

    def pay(self, rows: int, owner: str) -> None:
        if self.ledger is not None and not self.ledger.pay(Cost(evaluations=rows), owner):
            raise Spent(f"The budget's {self.ledger.refused} ran out at {rows} more evaluations of {owner}.")

    def draw(self, effect: Draw) -> tuple[Tensor, Tensor]:
        if effect.by.branches and self.copying:
            raise UsageError(
                f"{type(effect.by).__name__} branches, and copies at once cannot: Copies(k, objective, at_once=False)."
            )
        site = effect.by.open(self._fitted(effect.distribution), self.shape)
        self.sites.append(site)
        if effect.by.branches:
            self.pay(self.rows * (len(site.value) - 1), effect.owner)
            self._enter(len(site.value), False)
        return site.value, site.log_density

    def _fitted(self, distribution: Distribution) -> Distribution:
        """The distribution with as many draws as there are, unless it has them already."""
        batch = distribution.batch_shape
        if not batch or batch == self.shape[len(self.shape) - len(batch) :]:
            return distribution
        try:
            shape = torch.broadcast_shapes(batch, self.shape)
        except RuntimeError:
            shape = Size()
        if shape[-1:] != (self.draws,) or len(shape) > len(self.world):
            raise UsageError(
                f"{distribution!r:.80} has batch shape {tuple(batch)} where {tuple(self.shape)} is drawn: one "
                "choice of several numbers is an event, Independent(Normal(m, s), 1)."
            )
        return distribution if shape == batch else distribution.expand(shape)

    def expect(self, objective: Objective) -> Estimate:
        """Run it, close its sites from the last to the first, and forget its branches."""
        first, depth, copying = len(self.sites), len(self.world), self.copying
        self.copying = 0
        value = self.run(objective())
        value = value.value if isinstance(value, Estimate) else torch.as_tensor(value)
        for site in reversed(self.sites[first:]):
            value = site.close(value)
        del self.sites[first:]
        self._leave(depth)
        self.copying = copying
        if value.ndim > depth or (value.ndim and value.shape[-1] not in (1, self.draws)):
            raise UsageError(
                f"The objective gave shape {tuple(value.shape)} for {self.draws} draws: return one number a draw; a "
                "choice of several numbers is Independent(Normal(m, s), 1)."
            )
        return Estimate(whole(value, self.shape), frozenset([next(self.fresh)]))

    def copies(self, effect: Copies) -> Any:
        if not isinstance(effect.k, int) or effect.k < 1:
            raise UsageError(f"Copies({effect.k!r}, ...): how many runs, 1 or more; Copies(5, objective).")
        if not effect.at_once:
            return stacked([self.run(effect.objective()) for _ in range(effect.k)])
        first, depth = len(self.sites), len(self.world)
        self._enter(effect.k, True)
        self.copying += 1
        values = whole(self.run(effect.objective()), self.shape)
        self.copying -= 1
        self._leave(depth)
        for site in self.sites[first:]:  # the loss that multiplies the scores is that of all copies together
            site.score = None if site.score is None else site.score.sum(0)
            site.credit = None if site.credit is None else site.credit.sum(0)
        return values

    def _enter(self, size: int, full: bool) -> None:
        self.world.append(size)
        self.full.append(full)
        self._measure()

    def _leave(self, depth: int) -> None:
        if len(self.world) > depth:
            del self.world[depth:], self.full[depth:]
            self._measure()

    def _measure(self) -> None:
        sizes = [size if full else 1 for size, full in zip(self.world, self.full, strict=True)]
        self.shape, self.rows = Size(reversed(sizes)), math.prod(self.world)


def whole(values: Any, shape: Size) -> Any:
    """Tensors, or mappings and tuples of them, with all axes of this shape: what depends on no draw may lack some."""
    if isinstance(values, Mapping):
        return {name: whole(value, shape) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(whole(value, shape) for value in values)
    if values.ndim > len(shape) or (values.ndim == len(shape) and values.shape[-1] == shape[-1]):
        return values
    return values.expand(torch.broadcast_shapes(values.shape, shape))


def stacked(values: list[Any]) -> Any:
    """Runs' results on a new first axis: tensors, or mappings and tuples of them."""
    first = values[0]
    if isinstance(first, Mapping):
        return {name: stacked([value[name] for value in values]) for name in first}
    if isinstance(first, tuple):
        return tuple(stacked(list(part)) for part in zip(*values, strict=True))
    return torch.stack(torch.broadcast_tensors(*values))
