"""What should be believed, given what was seen? Programs that sample and observe, and inference that is checked."""

from anystep.bayes import mcmc, vi
from anystep.bayes.amortised import AnyOrderProcess, MarginalizationModel
from anystep.bayes.amortised.distribution_transformer import DistributionRecipe, DistributionTransformer
from anystep.bayes.amortised.distribution_transformer_problems import LinearGaussian, MixturePriors, UnknownNormal
from anystep.bayes.amortised.mixtures import GaussianMixture
from anystep.bayes.amortised.pfn import PriorCheck, PriorFittedNetwork
from anystep.bayes.amortised.pfn_recipe import PFNRecipe
from anystep.bayes.amortised.priors import GPPrior, TabularPrior
from anystep.bayes.causal import StringDiagram, testwise_deletion_discovery
from anystep.bayes.graphs import label_proportions_bp
from anystep.bayes.inference import importance, particle_marginal, smc, smc_population, trace_mh
from anystep.bayes.measure import measure, normalised
from anystep.bayes.nested import NestedResult, NestedSampler, SurrogateNestedSampler
from anystep.bayes.optimise import BayesianOptimiser, BNNSurrogate, minimise
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
    "AnyOrderProcess",
    "BNNSurrogate",
    "BayesianOptimiser",
    "Distribution",
    "DistributionRecipe",
    "DistributionTransformer",
    "Factor",
    "Finite",
    "GPPrior",
    "GaussianMixture",
    "Inner",
    "LinearGaussian",
    "MarginalizationModel",
    "MixturePriors",
    "NIWMeta",
    "NestedResult",
    "NestedSampler",
    "Normal",
    "Observe",
    "PFNRecipe",
    "Particle",
    "PriorCheck",
    "PriorFittedNetwork",
    "Program",
    "ProgramProcess",
    "ProtoCL",
    "Ranks",
    "Sample",
    "StringDiagram",
    "SurrogateNestedSampler",
    "Suspended",
    "TabularPrior",
    "TraceKernel",
    "Traces",
    "Uniform",
    "UnknownNormal",
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
    "minimise",
    "normalised",
    "particle_marginal",
    "push_evidence",
    "resample",
    "simulation_based_calibration",
    "smc",
    "smc_population",
    "spawn",
    "testwise_deletion_discovery",
    "trace_mh",
    "vi",
    "weighed",
]
