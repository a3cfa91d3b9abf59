"""Which diffusion models are there to begin with? Closed-form mixtures, and small trained ones."""

from anystep.diffusion.models.mixture import MixtureDenoiser, ring, skewed

__all__ = ["MixtureDenoiser", "ring", "skewed"]
