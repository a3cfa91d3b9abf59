"""Where does this density have its mass? Markov kernels as endless processes, in batches, with their diagnostics."""

from anystep.bayes.mcmc.annealed import Annealed
from anystep.bayes.mcmc.chains import Chains, sample, transition
from anystep.bayes.mcmc.gibbs import Enumerated, Gibbs, Randomness
from anystep.bayes.mcmc.hamiltonian import HMC, mala
from anystep.bayes.mcmc.kernel import Kernel, Scale
from anystep.bayes.mcmc.random_walk import RandomWalk
from anystep.bayes.mcmc.slice import Slice
from anystep.bayes.mcmc.target import Target
from anystep.bayes.mcmc.tempering import Ladder, ParallelTempering
from anystep.bayes.mcmc.walkers import Info, Walkers
from anystep.bayes.mcmc.warm_up import warm_up

__all__ = [
    "Annealed",
    "Chains",
    "Enumerated",
    "Gibbs",
    "HMC",
    "Info",
    "Kernel",
    "Ladder",
    "ParallelTempering",
    "RandomWalk",
    "Randomness",
    "Scale",
    "Slice",
    "Target",
    "Walkers",
    "mala",
    "sample",
    "transition",
    "warm_up",
]
