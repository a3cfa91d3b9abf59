"""Which diffusion models are there to begin with? Closed-form mixtures, exact Markov chains, and small trained ones."""

from anystep.diffusion.models.digit_classifier import DigitClassifier, digits_classifier
from anystep.diffusion.models.digit_data import Images, digits_data, mnist_data
from anystep.diffusion.models.digit_flow import DigitFlow, DigitRecipe, digits
from anystep.diffusion.models.dna import dna, dna_data
from anystep.diffusion.models.markov import MarkovChain, Table, chain
from anystep.diffusion.models.mixture import MixtureClassifier, MixtureDenoiser, ring, skewed
from anystep.diffusion.models.mnist import mnist
from anystep.diffusion.models.patch_digits import PatchRecipe, patch_digits
from anystep.diffusion.models.patch_net import PatchFlow, PatchNet, PatchShape

__all__ = [
    "DigitClassifier",
    "DigitFlow",
    "DigitRecipe",
    "Images",
    "MarkovChain",
    "MixtureClassifier",
    "MixtureDenoiser",
    "PatchFlow",
    "PatchNet",
    "PatchRecipe",
    "PatchShape",
    "Table",
    "chain",
    "digits",
    "digits_classifier",
    "digits_data",
    "dna",
    "dna_data",
    "mnist",
    "mnist_data",
    "patch_digits",
    "ring",
    "skewed",
]
