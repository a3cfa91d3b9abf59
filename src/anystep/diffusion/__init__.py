"""What lies behind this noise? Diffusion and flow models as processes: solvers, guidance, and search on denoising."""

from anystep.diffusion import guidance, models, solvers, spacing
from anystep.diffusion.denoiser import NULL, Denoiser, Network
from anystep.diffusion.editors import NearbyNoise, Renoise
from anystep.diffusion.process import DiffusionProcess
from anystep.diffusion.rewards import on_clean, potential_on_clean
from anystep.diffusion.sampling import Samples, sample
from anystep.diffusion.schedules import VE, VP, Flow, Schedule
from anystep.diffusion.spacing import Karras, Spacing, Times, Uniform
from anystep.diffusion.states import Noised

__all__ = [
    "NULL",
    "VE",
    "VP",
    "Denoiser",
    "DiffusionProcess",
    "Flow",
    "Karras",
    "NearbyNoise",
    "Network",
    "Noised",
    "Renoise",
    "Samples",
    "Schedule",
    "Spacing",
    "Times",
    "Uniform",
    "guidance",
    "models",
    "on_clean",
    "potential_on_clean",
    "sample",
    "solvers",
    "spacing",
]
