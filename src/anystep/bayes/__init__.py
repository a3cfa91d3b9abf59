"""What should be believed, given what was seen? Programs that sample and observe, and inference that is checked."""

from anystep.bayes import mcmc
from anystep.bayes.amortised.pfn import PriorCheck, PriorFittedNetwork
from anystep.bayes.amortised.pfn_recipe import PFNRecipe
from anystep.bayes.amortised.priors import GPPrior, TabularPrior
from anystep.bayes.inference import importance, particle_marginal, smc, smc_population, trace_mh
from anystep.bayes.measure import measure, normalised
from anystep.bayes.process import ProgramProcess, TraceKernel, Traces
from anystep.bayes.programs import (
    Distribution,
    Factor,
    Finite,
    Inner,
    Normal,
    Observe,
    Program,
    Sample,
    Uniform,
    choice,
    flip,
)
from anystep.bayes.representations import (
    Particle,
    Suspended,
    advance,
    collapse,
    evidence,
    forward,
    mh_step,
    push_evidence,
    resample,
    spawn,
    weighed,
)
from anystep.bayes.sbc import Ranks, simulation_based_calibration
from anystep.bayes.sequential import NIWMeta, ProtoCL

__all__ = [
    "Ranks",
    "simulation_based_calibration",
    "Distribution",
    "Factor",
    "Finite",
    "GPPrior",
    "Inner",
    "NIWMeta",
    "Normal",
    "Observe",
    "PFNRecipe",
    "Particle",
    "PriorCheck",
    "PriorFittedNetwork",
    "Program",
    "ProgramProcess",
    "ProtoCL",
    "Sample",
    "Suspended",
    "TabularPrior",
    "TraceKernel",
    "Traces",
    "Uniform",
    "advance",
    "choice",
    "collapse",
    "evidence",
    "flip",
    "forward",
    "importance",
    "mcmc",
    "measure",
    "mh_step",
    "normalised",
    "particle_marginal",
    "push_evidence",
    "resample",
    "smc",
    "smc_population",
    "spawn",
    "trace_mh",
    "weighed",
]
