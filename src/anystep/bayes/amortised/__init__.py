"""What would the posterior say, without waiting for it? Networks that learned inference on draws of a prior."""

from anystep.bayes.amortised.marginalization import Gap, MarginalizationModel
from anystep.bayes.amortised.marginalization_net import MarginalNet, MarginalShape
from anystep.bayes.amortised.marginalization_process import AnyOrderProcess
from anystep.bayes.amortised.marginalization_training import DataRecipe, EnergyRecipe, Stage

__all__ = [
    "AnyOrderProcess",
    "DataRecipe",
    "EnergyRecipe",
    "Gap",
    "MarginalNet",
    "MarginalShape",
    "MarginalizationModel",
    "Stage",
]
