"""Which diffusion models are there to begin with? Closed-form mixtures, and small trained ones."""

from anystep.diffusion.models.mixture import MixtureClassifier, MixtureDenoiser, ring, skewed

__all__ = ["MixtureClassifier", "MixtureDenoiser", "ring", "skewed"]
