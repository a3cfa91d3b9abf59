"""How good are samples? Distances between sets, with the floor that real data itself has."""

from anystep.diffusion.evaluate.digits import digits_conditions, digits_floor, digits_memorised, digits_quality
from anystep.diffusion.evaluate.distances import energy_distance, mmd, sliced_wasserstein
from anystep.diffusion.evaluate.frechet import frechet, frechet_gaussians
from anystep.diffusion.evaluate.neighbours import Neighbours, memorised, nearest, neighbours
from anystep.diffusion.evaluate.quality import Quality, Spread, over, quality
from anystep.diffusion.evaluate.sweep import Swept, sweep

__all__ = [
    "Neighbours",
    "Quality",
    "Spread",
    "Swept",
    "digits_conditions",
    "digits_floor",
    "digits_memorised",
    "digits_quality",
    "energy_distance",
    "frechet",
    "frechet_gaussians",
    "memorised",
    "mmd",
    "nearest",
    "neighbours",
    "over",
    "quality",
    "sliced_wasserstein",
    "sweep",
]
