"""What stands at the hidden sites? Masked (discrete) diffusion as a process: orders, paces, guidance, infilling."""

from anystep.diffusion.masked.exact import Lattice
from anystep.diffusion.masked.likelihood import log_likelihood
from anystep.diffusion.masked.orders import Confidence, LeftToRight, Order, Random, Sites, Spread
from anystep.diffusion.masked.pace import Cosine, Linear, Pace
from anystep.diffusion.masked.predictor import ClassifierFree, NetworkPredictor, Predictor
from anystep.diffusion.masked.process import MaskedProcess
from anystep.diffusion.masked.sampling import Sequences, sample
from anystep.diffusion.masked.states import Masked
from anystep.diffusion.masked.training import MaskedRecipe, train
from anystep.diffusion.masked.transformer import Shape, TokenTransformer

__all__ = [
    "ClassifierFree",
    "Confidence",
    "Cosine",
    "Lattice",
    "LeftToRight",
    "Linear",
    "Masked",
    "MaskedProcess",
    "MaskedRecipe",
    "NetworkPredictor",
    "Order",
    "Pace",
    "Predictor",
    "Random",
    "Sequences",
    "Shape",
    "Sites",
    "Spread",
    "TokenTransformer",
    "log_likelihood",
    "sample",
    "train",
]
