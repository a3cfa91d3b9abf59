"""What would the posterior say, without waiting for it? Networks that learned inference on draws of a prior."""

from anystep.bayes.amortised.distribution_transformer import DistributionRecipe, DistributionTransformer
from anystep.bayes.amortised.distribution_transformer_problems import LinearGaussian, Priors, UnknownNormal
from anystep.bayes.amortised.mixtures import GaussianMixture

__all__ = [
    "DistributionRecipe",
    "DistributionTransformer",
    "GaussianMixture",
    "LinearGaussian",
    "Priors",
    "UnknownNormal",
]
