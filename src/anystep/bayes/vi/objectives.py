"""The usual objectives, each a program of a few lines; all are to be made large.

model: unnormalised over the guide's addresses: `condition(model, data)`, or a program that observes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from anystep.bayes.vi.expectations import Copies, Expect, Going, Objective, mean_exp
from anystep.bayes.vi.programs import Program, condition, density, fixed, simulate


def elbo(model: Program, guide: Program) -> Objective:
    """E_q[log p(z, x) - log q(z)], a lower bound of log p(x) (Jordan et al., 1999)."""

    def objective() -> Going:
        trace, q = yield from simulate(guide)
        return (yield from density(model, trace)) - q

    return objective


def iwelbo(model: Program, guide: Program, k: int, at_once: bool = True) -> Objective:
    """E[log of the mean of k weights p(z, x) / q(z)], tighter as k grows (Burda et al., arXiv 1509.00519).

    at_once: all k as one batch; False where the guide has sites that branch.
    """

    def objective() -> Going:
        return mean_exp((yield Copies(k, elbo(model, guide), at_once)))

    return objective


def wake_sleep(
    model: Callable[[], Going], recognise: Callable[[Mapping[str, Tensor]], Program], data: Mapping[str, Tensor]
) -> Objective:
    """Wake: log p(z, x) of what the guide infers from the data. Sleep: log q(z) of what the model dreams with an x.

    The guide is no parameter of the first and the model none of the second, so the gradient is that of no one
    function (Hinton et al., 1995). model: normalised, over z and x. recognise: from x to a guide over z.
    """

    def wake() -> Going:
        inferred, _ = yield from simulate(fixed(recognise(data)))  # type: ignore[arg-type]
        return (yield from density(condition(model, data), inferred))

    def sleep() -> Going:
        dreamt, _ = yield from simulate(fixed(model))
        seen = {name: dreamt.pop(name) for name in data}
        return (yield from density(recognise(seen), dreamt))

    def objective() -> Going:
        return (yield Expect(wake)) + (yield Expect(sleep))

    return objective
