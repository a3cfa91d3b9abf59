"""How does a sampler go from noise to data in few steps? One solver a file, all on one contract."""

from anystep.diffusion.solvers.ddim import DDIM
from anystep.diffusion.solvers.euler import Euler
from anystep.diffusion.solvers.heun import Heun
from anystep.diffusion.solvers.solver import Here, Level, Reached, Solver

__all__ = ["DDIM", "Euler", "Here", "Heun", "Level", "Reached", "Solver"]
