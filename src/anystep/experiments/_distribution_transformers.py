"""The problems and recipes of row 33: a place on a line and in a plane, and a normal law with nothing known."""

from __future__ import annotations

from dataclasses import replace

from anystep.bayes import DistributionRecipe, LinearGaussian, MixturePriors, UnknownNormal
from anystep.bayes.amortised.distribution_transformer_problems import OnePrior

LINE = LinearGaussian(sensors=((((0.8,),), ((0.6,),)),))
PLANE = LinearGaussian(
    sensors=(
        (((1.0, 0.4), (-0.3, 0.8)), ((0.6, 0.25), (0.25, 0.4))),
        (((0.7, -0.6),), ((0.3,),)),
    ),
    most=2,
    moves=(((0.95, 0.3), (-0.2, 0.9)), ((0.08, 0.03), (0.03, 0.12))),
)
NORMAL = UnknownNormal(mean=True, given=MixturePriors(centre=0.7, sizes=(0.2, 0.8)))
ONE_PRIOR = replace(LINE, given=OnePrior((0.5, 0.3, 0.2), ((0.4,), (-1.1,), (1.6,)), (((0.2,),), ((0.5,),), ((0.1,),))))

RECIPES = {
    "line": DistributionRecipe(LINE, updates=2_000),
    "still": DistributionRecipe(replace(LINE, most=2), fresh=0.1, updates=5_000),
    "plane": DistributionRecipe(PLANE, updates=1_800),
    "normal, 5": DistributionRecipe(NORMAL, components=5, fresh=1.0, updates=2_000),
    "normal, 2": DistributionRecipe(NORMAL, components=2, fresh=1.0, updates=2_000),
    "one prior": DistributionRecipe(ONE_PRIOR, fresh=1.0, updates=600),
    "unlocked": DistributionRecipe(LINE, fresh=1.0, prior_loss=False, updates=500),
    "locked": DistributionRecipe(LINE, fresh=1.0, updates=500),
}
