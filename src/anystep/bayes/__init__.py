"""What should be believed, given what was seen? Programs that sample and observe, and inference that is checked."""

from anystep.bayes import mcmc
from anystep.bayes.amortised.pfn import PriorCheck, PriorFittedNetwork
from anystep.bayes.amortised.pfn_recipe import PFNRecipe
from anystep.bayes.amortised.priors import GPPrior, TabularPrior
from anystep.bayes.causal import StringDiagram
from anystep.bayes.graphs import label_proportions_bp
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

__all__ = [
    "Distribution",
    "Factor",
    "Finite",
    "GPPrior",
    "Inner",
    "Normal",
    "Observe",
    "PFNRecipe",
    "Particle",
    "PriorCheck",
    "PriorFittedNetwork",
    "Program",
    "ProgramProcess",
    "Ranks",
    "Sample",
    "StringDiagram",
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
    "label_proportions_bp",
    "mcmc",
    "measure",
    "mh_step",
    "normalised",
    "particle_marginal",
    "push_evidence",
    "resample",
    "simulation_based_calibration",
    "smc",
    "smc_population",
    "spawn",
    "trace_mh",
    "weighed",
]
