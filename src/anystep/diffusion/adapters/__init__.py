"""How do diffusers and anystep use each other's models, schedulers and solvers? One function for each way.

`from_diffusers(model, scheduler)` is a denoiser for our solvers, `diffusers_loop(model, scheduler, steps)` a process
that steps the scheduler itself, `to_diffusers(solver, scheduler)` a scheduler for a pipeline that steps our solver.
"""

from anystep.diffusion.adapters.denoiser import DiffusersDenoiser, from_diffusers
from anystep.diffusion.adapters.process import DiffusersProcess, diffusers_loop
from anystep.diffusion.adapters.scheduler import to_diffusers

__all__ = ["DiffusersDenoiser", "DiffusersProcess", "diffusers_loop", "from_diffusers", "to_diffusers"]
