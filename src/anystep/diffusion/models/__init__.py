"""Which diffusion models are there to begin with? Closed-form mixtures, exact Markov chains, and small trained ones."""

from anystep.diffusion.models.digit_classifier import DigitClassifier, digits_classifier
from anystep.diffusion.models.digit_data import Images, digits_data
from anystep.diffusion.models.digit_flow import DigitFlow, DigitRecipe, digits
from anystep.diffusion.models.markov import MarkovChain, Table, chain
from anystep.diffusion.models.mixture import MixtureClassifier, MixtureDenoiser, ring, skewed

__all__ = [
    "DigitClassifier",
    "DigitFlow",
    "DigitRecipe",
    "Images",
    "MarkovChain",
    "MixtureClassifier",
    "MixtureDenoiser",
    "Table",
    "chain",
    "digits",
    "digits_classifier",
    "digits_data",
    "ring",
    "skewed",
]
