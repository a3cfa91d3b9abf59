"""Where these programs meet `bayes.programs`: a finite one of torch, as one that `measure` enumerates."""

from __future__ import annotations

from collections.abc import Callable

from anystep.bayes import programs as plain
from anystep.bayes.vi.expectations import Going
from anystep.bayes.vi.programs import Factor, Sample, sent
from anystep.errors import UsageError


def finite(program: Callable[[], Going]) -> plain.Program:
    """The same measure in Python's numbers, which returns its trace: ((address, value), ...).

    So `measure(finite(condition(model, data)))` is the exact joint table, and all of `bayes` runs on it. Masses are the
    floats that torch computes, scaled to sum to one. Raises UsageError at a site without a finite support.
    """

    def scalar() -> plain.Effects:
        trace: list[tuple[str, object]] = []
        going, answer = program(), None
        while (effect := sent(going, answer)) is not None:
            if isinstance(effect, Factor):
                answer = None
                yield plain.Factor(float(effect.weight.sum().exp()))
            elif isinstance(effect, Sample) and effect.distribution.has_enumerate_support:
                values = effect.distribution.enumerate_support()
                masses = effect.distribution.log_prob(values).double().exp()
                table = plain.Finite(tuple(range(len(values))), tuple((masses / masses.sum()).reshape(-1).tolist()))
                answer = values[(yield plain.Sample(table))]
                trace.append((effect.name, answer.item()))
            else:
                raise UsageError(f"finite(program): {effect!r:.80} has no finite support; Sample(Bernoulli(0.3), 'z').")
        return tuple(trace)

    return scalar
