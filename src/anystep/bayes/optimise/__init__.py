"""Where is an expensive function lowest? Bayesian optimisation with surrogates that can be exchanged."""

from anystep.bayes.optimise.acquisition import log_expected_improvement, suggest
from anystep.bayes.optimise.bnn import HMC, SGHMC, BNNSurrogate
from anystep.bayes.optimise.network import InfiniteWidth, Network
from anystep.bayes.optimise.optimiser import BayesianOptimiser, Optimum, minimise, minimise_many
from anystep.bayes.optimise.surrogates import (
    Belief,
    DeepKernelSurrogate,
    EnsembleSurrogate,
    GPSurrogate,
    InfiniteWidthSurrogate,
    Surrogate,
)

__all__ = [
    "HMC",
    "SGHMC",
    "BNNSurrogate",
    "BayesianOptimiser",
    "Belief",
    "DeepKernelSurrogate",
    "EnsembleSurrogate",
    "GPSurrogate",
    "InfiniteWidth",
    "InfiniteWidthSurrogate",
    "Network",
    "Optimum",
    "Surrogate",
    "log_expected_improvement",
    "minimise",
    "minimise_many",
    "suggest",
]
