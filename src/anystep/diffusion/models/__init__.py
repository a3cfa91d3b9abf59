"""Which diffusion models are there to begin with? Closed-form mixtures, and small trained ones."""

from anystep.diffusion.models.digit_classifier import DigitClassifier, digits_classifier
from anystep.diffusion.models.digit_data import Images, digits_data
from anystep.diffusion.models.digit_flow import DigitFlow, DigitRecipe, digits
from anystep.diffusion.models.mixture import MixtureClassifier, MixtureDenoiser, ring, skewed
from anystep.diffusion.models.patch_digits import PatchRecipe, patch_digits
from anystep.diffusion.models.patch_net import PatchFlow, PatchNet, PatchShape

__all__ = [
    "DigitClassifier",
    "DigitFlow",
    "DigitRecipe",
    "Images",
    "MixtureClassifier",
    "MixtureDenoiser",
    "PatchFlow",
    "PatchNet",
    "PatchRecipe",
    "PatchShape",
    "digits",
    "digits_classifier",
    "digits_data",
    "patch_digits",
    "ring",
    "skewed",
]
