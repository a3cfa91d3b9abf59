"""Which simple distribution is nearest, by which measure? Objectives as programs, with gradients that are unbiased.

Models and guides are generator functions over torch's distributions, in batches; an objective is a generator function
that simulates, scores and takes expectations of them; every random choice has its own strategy for its gradient.
"""

from anystep.bayes.vi.constructs import marginal, normalise
from anystep.bayes.vi.expectations import Copies, Draw, Estimate, Expect, exponential, mean_exp
from anystep.bayes.vi.finite import finite
from anystep.bayes.vi.fit import Fit, fit
from anystep.bayes.vi.machine import Spent, estimate
from anystep.bayes.vi.objectives import elbo, iwelbo, wake_sleep
from anystep.bayes.vi.programs import (
    Construct,
    Factor,
    Inner,
    Observe,
    Sample,
    condition,
    density,
    fixed,
    simulate,
    using,
)
from anystep.bayes.vi.strategies import (
    Enumerate,
    Fixed,
    Implicit,
    LeaveOneOut,
    Reparameterise,
    Score,
    Site,
    Strategy,
    WeakDerivative,
)

__all__ = [
    "Construct",
    "Copies",
    "Draw",
    "Enumerate",
    "Estimate",
    "Expect",
    "Factor",
    "Fit",
    "Fixed",
    "Implicit",
    "Inner",
    "LeaveOneOut",
    "Observe",
    "Reparameterise",
    "Sample",
    "Score",
    "Site",
    "Spent",
    "Strategy",
    "WeakDerivative",
    "condition",
    "density",
    "elbo",
    "estimate",
    "exponential",
    "finite",
    "fit",
    "fixed",
    "iwelbo",
    "marginal",
    "mean_exp",
    "normalise",
    "simulate",
    "using",
    "wake_sleep",
]
