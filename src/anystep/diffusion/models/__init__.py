"""Which diffusion models are there to begin with? Closed-form mixtures, exact Markov chains, and small trained ones."""

from anystep.diffusion.models.markov import MarkovChain, Table, chain
from anystep.diffusion.models.mixture import MixtureClassifier, MixtureDenoiser, ring, skewed

__all__ = ["MarkovChain", "MixtureClassifier", "MixtureDenoiser", "Table", "chain", "ring", "skewed"]
