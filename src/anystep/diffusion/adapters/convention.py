"""What a diffusers scheduler assumes of its model: the scale of its input, what its timesteps and outputs mean.

The scheduler's own steps do not matter here: schedulers that agree on these three share one convention, and so one
schedule of ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.denoiser import spread
from anystep.diffusion.schedules import VE, DiscreteVP, Floats, Flow, Schedule
from anystep.errors import UsageError

LEAST = 2.0**-24  # of alpha^2
TINY = 1e-12  # a beta where the table stands still, as rounding makes it at its end


class Convention(ABC):
    """One of our schedules, and how the model behind it is asked.

    x is on the schedule's scale, `shown` what the model is given, `timesteps` what it is told, `said` what it answers.
    """

    schedule: Schedule

    @abstractmethod
    def timesteps(self, t: Floats) -> Floats:
        """What the model is told at these times."""

    @abstractmethod
    def times(self, timesteps: Floats) -> Floats:
        """The inverse of `timesteps`."""

    def shown(self, x: Tensor, t: Floats) -> Tensor:
        """x as the model is given it."""
        return x

    @abstractmethod
    def clean(self, shown: Tensor, t: Floats, said: Tensor) -> Tensor:
        """E[x_0 | x_t] from what the model was given and what it answered."""


class TableConvention(Convention):
    """Schedulers with a table of alphas: DDPM, DDIM, PNDM, DPM++, UniPC, Euler and their like."""

    def __init__(self, scheduler: Any) -> None:
        config = scheduler.config
        self.scheduler, self.predicts = scheduler, config.prediction_type
        if self.predicts not in ("epsilon", "sample", "v_prediction"):
            raise UsageError(
                f"{type(scheduler).__name__}(prediction_type={self.predicts!r}) is not known; use 'epsilon', 'sample' "
                "or 'v_prediction'."
            )
        if getattr(config, "timestep_type", "discrete") != "discrete":
            raise UsageError(f"timestep_type={config.timestep_type!r} needs no timesteps; use diffusers_loop.")
        self.path = self.schedule = DiscreteVP(betas_of(scheduler.alphas_cumprod))
        self.bound = float(config.clip_sample_range) if getattr(config, "clip_sample", False) else None
        self.thresholds = bool(getattr(config, "thresholding", False))

    def timesteps(self, t: Floats) -> Floats:
        return self.path.index(t)

    def times(self, timesteps: Floats) -> Floats:
        return (np.asarray(timesteps) + 1) / len(self.path.betas)

    def clean(self, shown: Tensor, t: Floats, said: Tensor) -> Tensor:
        alpha, sigma = (spread(of(t), shown) for of in (self.schedule.alpha, self.schedule.sigma))
        if self.predicts == "sample":
            clean = said
        elif self.predicts == "epsilon":
            clean = (shown - sigma * said) / alpha
        else:
            clean = alpha * shown - sigma * said
        clean = clean.to(shown.dtype)
        if self.thresholds:
            return self.scheduler._threshold_sample(clean)
        return clean if self.bound is None else clean.clamp(-self.bound, self.bound)


class FlowConvention(Convention):
    """Flow matching: the model is told 1,000 t (`num_train_timesteps` t) and answers the velocity."""

    def __init__(self, scheduler: Any) -> None:
        self.schedule, self.count = Flow(), scheduler.config.num_train_timesteps
        if getattr(scheduler.config, "invert_sigmas", False):
            raise UsageError("invert_sigmas=True runs its times the other way; use diffusers_loop.")

    def timesteps(self, t: Floats) -> Floats:
        return np.asarray(t) * self.count

    def times(self, timesteps: Floats) -> Floats:
        return np.asarray(timesteps) / self.count

    def clean(self, shown: Tensor, t: Floats, said: Tensor) -> Tensor:
        return (shown - spread(t, shown) * said).to(shown.dtype)


class EDMConvention(Convention):
    """Karras et al.'s preconditioning: the model is given x / sqrt(t^2 + data^2) and told log(t) / 4."""

    def __init__(self, scheduler: Any) -> None:
        config = scheduler.config
        self.schedule, self.data = VE(float(config.sigma_max)), float(config.sigma_data)
        self.sign = -1.0 if config.prediction_type == "v_prediction" else 1.0

    def timesteps(self, t: Floats) -> Floats:
        return 0.25 * np.log(np.asarray(t))

    def times(self, timesteps: Floats) -> Floats:
        return np.exp(4 * np.asarray(timesteps, dtype=np.float64))

    def _total(self, t: Floats, x: Tensor) -> Tensor:
        return torch.sqrt(spread(t, x) ** 2 + self.data**2)

    def shown(self, x: Tensor, t: Floats) -> Tensor:
        return (x / self._total(t, x)).to(x.dtype)

    def clean(self, shown: Tensor, t: Floats, said: Tensor) -> Tensor:
        total = self._total(t, shown)
        kept, out = self.data**2 / total, self.sign * self.data * spread(t, shown) / total
        return (kept * shown + out * said).to(shown.dtype)


def convention_of(scheduler: Any) -> Convention:
    """The convention of a diffusers scheduler. Raises UsageError for one that has none of ours."""
    kind, config = type(scheduler).__name__, scheduler.config
    if kind.startswith("FlowMatch") or getattr(config, "prediction_type", None) == "flow_prediction":
        return FlowConvention(scheduler)
    if kind.startswith("EDM"):
        return EDMConvention(scheduler)
    if isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor):
        return TableConvention(scheduler)
    raise UsageError(
        f"{kind} has neither a table of alphas nor flow-matching times; diffusers_loop(model, scheduler, steps) steps "
        "any scheduler as it is."
    )


def betas_of(squares: Tensor) -> tuple[float, ...]:
    """The betas of a table of alpha^2, which falls. Where it ends without any signal, 2^-24 of it is left, as in
    diffusers' own Euler scheduler, so that every timestep has a noise level."""
    table = np.minimum.accumulate(np.maximum(numbers(squares), LEAST))
    betas = 1 - table / np.concatenate([[1.0], table[:-1]])
    return tuple(np.maximum(betas, TINY).tolist())


def numbers(timesteps: Any) -> NDArray[np.float64]:
    """A scheduler's timesteps as float64."""
    return np.asarray(torch.as_tensor(timesteps).detach().cpu().to(torch.float64).numpy())
