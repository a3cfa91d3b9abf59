"""How is a sampler led towards a class or a wish? Wrappers of a denoiser, which then is one itself."""

from anystep.diffusion.guidance.classifier_free import ClassifierFree
from anystep.diffusion.guidance.guided import Guided

__all__ = ["ClassifierFree", "Guided"]
