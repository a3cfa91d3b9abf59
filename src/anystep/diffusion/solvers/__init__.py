"""How does a sampler go from noise to data in few steps? One solver a file, all on one contract."""

from anystep.diffusion.solvers.adams_bashforth import AdamsBashforth2
from anystep.diffusion.solvers.ddim import DDIM, DDPM
from anystep.diffusion.solvers.dpmpp_2m import DPMpp2M
from anystep.diffusion.solvers.euler import Euler
from anystep.diffusion.solvers.heun import Heun
from anystep.diffusion.solvers.midpoint import Midpoint
from anystep.diffusion.solvers.pndm import PNDM
from anystep.diffusion.solvers.predictor_corrector import PredictorCorrector, few_step
from anystep.diffusion.solvers.solver import Here, Level, Reached, Solver
from anystep.diffusion.solvers.time_shift import TimeShiftSampler

__all__ = [
    "DDIM",
    "DDPM",
    "PNDM",
    "AdamsBashforth2",
    "DPMpp2M",
    "Euler",
    "Here",
    "Heun",
    "Level",
    "Midpoint",
    "PredictorCorrector",
    "Reached",
    "Solver",
    "TimeShiftSampler",
    "few_step",
]
