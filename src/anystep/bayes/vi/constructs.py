"""Distributions over traces that inference makes of others: `marginal` forgets addresses, `normalise` resamples.

Neither density can be computed. Both are estimated, without bias from the side that scores a given trace, and with an
unbiased reciprocal from the side that drew it: that is what keeps an objective of their logarithms a bound. The draws
of these estimates belong to the objective around them, like all others.

Source: Becker et al., PLDI 2024, arXiv 2406.15742; the two sides are importance sampling and its conditional form,
Andrieu, Doucet and Holenstein, "Particle Markov chain Monte Carlo methods", 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical

from anystep.bayes.vi.expectations import Copies, Draw, Going, mean_exp
from anystep.bayes.vi.programs import (
    Construct,
    Program,
    Trace,
    density,
    name_of,
    scored,
    simulate,
)
from anystep.bayes.vi.strategies import SCORE, Strategy
from anystep.errors import UsageError

Proposal = Callable[[Trace], Program]


class marginal(Construct):  # noqa: N801 - it reads as the construct that it is
    """A program's distribution over some of its addresses: exactly, with an estimated density.

    program: normalised. keep: addresses, of which the program samples all in every run. proposal: from a trace of those
    to a program over the others, positive wherever they are likely. n: importance samples. at_once: as in `Copies`.
    """

    def __init__(
        self, program: Program, keep: Sequence[str], proposal: Proposal, n: int = 1, at_once: bool = True
    ) -> None:
        if isinstance(keep, str) or not keep or n < 1:
            raise UsageError(f"marginal(keep={keep!r}, n={n}): addresses to keep and samples; keep=['z'], n=10.")
        self.program, self.keep, self.proposal, self.n, self.at_once = program, tuple(keep), proposal, n, at_once
        self.__name__ = f"marginal of {name_of(program)}"

    def simulate(self) -> Going:
        trace, joint = yield from simulate(self.program)
        kept = self._kept(trace)
        dropped = {name: value for name, value in trace.items() if name not in kept}
        own = joint - (yield from density(self.proposal(kept), dropped))
        others = (yield from self._weights(kept, self.n - 1)) if self.n > 1 else None
        return kept, _mean_with(own, others)

    def score(self, remaining: Trace) -> Going:
        kept = self._kept(remaining)
        for name in kept:
            del remaining[name]
        return mean_exp((yield from self._weights(kept, self.n)))

    def _weights(self, kept: Trace, n: int) -> Going:
        def weight() -> Going:
            guess, q = yield from simulate(self.proposal(kept))
            return (yield from density(self.program, kept | guess)) - q

        return (yield Copies(n, weight, self.at_once))

    def _kept(self, trace: Mapping[str, Tensor]) -> Trace:
        missing = [name for name in self.keep if name not in trace]
        if missing:
            raise UsageError(f"{self.__name__} keeps {missing[0]!r}, which the trace lacks: {list(trace)}.")
        return {name: trace[name] for name in self.keep}


class normalise(Construct):  # noqa: N801 - it reads as the construct that it is
    """Sampling-importance-resampling: of n traces of a proposal, one, by its weight under an unnormalised program.

    It tends to the normalised program as n grows; what it is at a finite n, its density estimates are of that.
    proposal: over the program's addresses, with sites that do not branch. by: the strategy of the choice among n.
    """

    def __init__(self, program: Program, proposal: Program, n: int, by: Strategy = SCORE) -> None:
        if n < 1:
            raise UsageError(f"normalise(n={n}): how many traces to choose from, 1 or more; n=10.")
        self.program, self.proposal, self.n, self.by = program, proposal, n, by
        self.__name__ = f"normalised {name_of(program)}"

    def simulate(self) -> Going:
        traces, targets, weights = yield from self._particles(self.n)
        index, _ = yield Draw(Categorical(logits=weights.movedim(0, -1)), self.by, self.__name__)
        rank = weights.ndim - 1
        trace = {name: chosen(values, index, rank) for name, values in traces.items()}
        return trace, chosen(targets, index, rank) - mean_exp(weights)

    def score(self, remaining: Trace) -> Going:
        before = dict(remaining)
        target = yield from scored(self.program, remaining)
        taken = {name: value for name, value in before.items() if name not in remaining}
        own = target - (yield from density(self.proposal, taken))
        others = (yield from self._particles(self.n - 1))[2] if self.n > 1 else None
        return target - _mean_with(own, others)

    def _particles(self, n: int) -> Going:
        """n traces of the proposal, their log-densities under the program, and their log-weights."""

        def particle() -> Going:
            trace, q = yield from simulate(self.proposal)
            target = yield from density(self.program, trace)
            return trace, target, target - q

        return (yield Copies(n, particle))


def _mean_with(own: Tensor, others: Tensor | None) -> Tensor:
    """log of the mean weight of one trace and of others, stacked."""
    if others is None:
        return own
    first, rest = torch.broadcast_tensors(own[None], others)
    return mean_exp(torch.cat((first[:1], rest)))


def chosen(values: Tensor, index: Tensor, rank: int) -> Tensor:
    """Of values (n, *batch, *event), those at index (..., *batch), whose branches go before the batch's `rank` axes."""
    event = values.ndim - 1 - rank
    spread = values.reshape(len(values), *(1,) * (index.ndim - rank), *values.shape[1:])
    return torch.take_along_dim(spread, index.reshape(1, *index.shape, *(1,) * event), 0)[0]
