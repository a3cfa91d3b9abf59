"""What should be believed, in one pass? Networks trained once that answer every question of a kind."""

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
