"""How is a sampler led towards a class or a wish? Wrappers of a denoiser, which then is one itself."""

from anystep.diffusion.guidance.classifier_free import ClassifierFree
from anystep.diffusion.guidance.classifier_guided import ClassifierGuided
from anystep.diffusion.guidance.collect_reflect_refine import (
    CollectReflectRefine,
    WeakRecipe,
    collect,
    collect_reflect_refine,
    reflect,
)
from anystep.diffusion.guidance.diffier import DiffIER
from anystep.diffusion.guidance.guided import Guided
from anystep.diffusion.guidance.one_more_step import OneMoreStep
from anystep.diffusion.guidance.ratio_aware import RatioAware, ratio_aware_guidance

__all__ = [
    "ClassifierFree",
    "ClassifierGuided",
    "CollectReflectRefine",
    "DiffIER",
    "Guided",
    "OneMoreStep",
    "RatioAware",
    "WeakRecipe",
    "collect",
    "collect_reflect_refine",
    "ratio_aware_guidance",
    "reflect",
]
