"""The scheduler class itself, apart from the rest because it derives from diffusers' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from torch import Tensor

from anystep.diffusion.adapters.convention import Convention
from anystep.diffusion.adapters.scheduler import begun
from anystep.diffusion.solvers.solver import Solver
from anystep.errors import UsageError


class SolverScheduler(SchedulerMixin, ConfigMixin):
    """A solver under the face of a scheduler; `to_diffusers` makes it. x is on the solver's schedule's own scale."""

    config_name = "scheduler_config.json"
    order = 1

    def __init__(self, solver: Solver, convention: Convention, scheduler: Any) -> None:
        self.solver, self.convention = solver, convention
        self.register_to_config(**dict(scheduler.config))
        self.set_timesteps(solver.steps)

    @property
    def init_noise_sigma(self) -> float:
        return float(self.convention.schedule.sigma(self.driver.grid[0]))

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Begin anew with so many steps of the solver."""
        self.driver = begun(self.solver, num_inference_steps, self.convention)
        self.num_inference_steps = num_inference_steps
        told = self.convention.timesteps(np.asarray(self.driver.asked))
        self.timesteps = torch.from_numpy(told).to(device=device, dtype=torch.float32)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """`sample` as the model is given it at the timestep that is next."""
        return self.convention.shown(sample, np.full(len(sample), self.driver.asked[self.driver.at]))

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Where the model is asked next, and what it predicted here.

        eta and use_clipped_model_output are here because a pipeline may name them; only their defaults are taken.
        Raises UsageError for others, and beyond the last timestep.
        """
        if eta or use_clipped_model_output:
            raise UsageError("A solver has these of its own: to_diffusers(DDIM(20, eta=1.0), scheduler).")
        if self.driver.at == len(self.timesteps):
            raise UsageError("All steps are taken; call set_timesteps(n) first.")
        x, clean = self.driver.step(model_output[:, : sample.shape[1]], sample, generator)
        return DDPMSchedulerOutput(prev_sample=x, pred_original_sample=clean) if return_dict else (x, clean)

    def __len__(self) -> int:
        return int(self.config.get("num_train_timesteps", len(self.timesteps)))
