"""What lies behind this noise? Diffusion and flow models as processes: solvers, guidance, and search on denoising."""

from anystep.diffusion import evaluate, guidance, masked, models, solvers, spacing
from anystep.diffusion.adapters import diffusers_loop, from_diffusers, to_diffusers
from anystep.diffusion.classifier import Classifier, NetworkClassifier
from anystep.diffusion.denoiser import NULL, Denoiser, Network
from anystep.diffusion.editors import NearbyNoise, Renoise
from anystep.diffusion.guidance import DiffIER, OneMoreStep, collect_reflect_refine, ratio_aware_guidance
from anystep.diffusion.masked import MaskedProcess
from anystep.diffusion.masked.motion import MaskedMotionModel
from anystep.diffusion.masked.spec_maskgit import SpecMaskGIT
from anystep.diffusion.patchwise import PatchProcess, sample_patches
from anystep.diffusion.process import DiffusionProcess
from anystep.diffusion.reflected_patches import ReflectedPatches, collect_patches, reflect_patches
from anystep.diffusion.rewards import on_clean, potential_on_clean
from anystep.diffusion.sampling import Paths, Samples, sample, trajectory
from anystep.diffusion.schedules import VE, VP, DiscreteVP, Flow, Schedule
from anystep.diffusion.series import TSDiff
from anystep.diffusion.solvers import TimeShiftSampler, few_step
from anystep.diffusion.spacing import FlowTime, Karras, LogSNR, Spacing, Times, Uniform
from anystep.diffusion.states import Noised
from anystep.diffusion.step_annealing import StepAnnealing, step_annealing
from anystep.diffusion.truncation_tuned import EarlyStop, truncation_tuned_sampler

__all__ = [
    "Classifier",
    "Denoiser",
    "DiffIER",
    "DiffusionProcess",
    "DiscreteVP",
    "EarlyStop",
    "Flow",
    "FlowTime",
    "Karras",
    "LogSNR",
    "MaskedMotionModel",
    "MaskedProcess",
    "NULL",
    "NearbyNoise",
    "Network",
    "NetworkClassifier",
    "Noised",
    "OneMoreStep",
    "PatchProcess",
    "Paths",
    "ReflectedPatches",
    "Renoise",
    "Samples",
    "Schedule",
    "Spacing",
    "SpecMaskGIT",
    "StepAnnealing",
    "TSDiff",
    "TimeShiftSampler",
    "Times",
    "Uniform",
    "VE",
    "VP",
    "diffusers_loop",
    "collect_patches",
    "collect_reflect_refine",
    "evaluate",
    "few_step",
    "from_diffusers",
    "guidance",
    "masked",
    "models",
    "on_clean",
    "potential_on_clean",
    "ratio_aware_guidance",
    "reflect_patches",
    "sample",
    "sample_patches",
    "solvers",
    "spacing",
    "step_annealing",
    "to_diffusers",
    "trajectory",
    "truncation_tuned_sampler",
]
