"""Where does this density have its mass? Markov kernels as endless processes, in batches, with their diagnostics."""

from anystep.bayes.mcmc.chains import Chains, sample, transition
from anystep.bayes.mcmc.hamiltonian import HMC, mala
from anystep.bayes.mcmc.kernel import Kernel, Scale
from anystep.bayes.mcmc.random_walk import RandomWalk
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.walkers import Info, Walkers

__all__ = [
    "HMC",
    "Chains",
    "Info",
    "Kernel",
    "RandomWalk",
    "Scale",
    "Target",
    "Walkers",
    "mala",
    "sample",
    "transition",
]
