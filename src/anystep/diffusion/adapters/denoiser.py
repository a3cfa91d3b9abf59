"""A diffusers model, with what its scheduler says of it, as a denoiser for our solvers, guidance and search."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from anystep.diffusion.adapters.convention import Convention, convention_of
from anystep.diffusion.denoiser import NULL, Denoiser
from anystep.errors import UsageError

Ask = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class Asked:
    """A diffusers model as a function of rows: what they look like, their timesteps, their conditions.

    Knows models called with a sample and `timestep`, and `class_labels` or `encoder_hidden_states` where there are
    conditions; `ask(model, shown, timesteps, condition)` is for the others.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: int | None,
        null: int | None,
        prompts: Tensor | None,
        ask: Ask | None,
        shape: tuple[int, ...] | None,
        least: int,
    ) -> None:
        first = next(model.parameters())
        self.model, self.null, self.ask, self.least = model.eval().requires_grad_(False), null, ask or self._ask, least
        self.dtype, self.device = first.dtype, first.device
        self.takes = set(inspect.signature(model.forward).parameters)
        config: Any = getattr(model, "config", None)
        known = getattr(config, "num_class_embeds", None) or getattr(config, "num_embeds_ada_norm", None) or 0
        self.prompts = None if prompts is None else prompts.to(self.device, self.dtype)
        self.classes = len(prompts) - 1 if prompts is not None else known if classes is None else classes
        self.shape = shape or _shape_of(config)
        if ask is None and "timestep" not in self.takes:
            raise UsageError(
                f"{type(model).__name__}.forward takes no `timestep`; say how to call it: "
                "from_diffusers(model, scheduler, ask=lambda model, x, timesteps, condition: ...)."
            )
        if prompts is not None and "encoder_hidden_states" not in self.takes:
            raise UsageError(f"{type(model).__name__} takes no encoder_hidden_states, so no prompts; leave them out.")

    def __call__(self, shown: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        n = len(shown)
        if n < self.least:
            fill = torch.arange(self.least, device=shown.device) % n
            shown, timesteps, condition = shown[fill], timesteps[fill], condition[fill]
        return self.ask(self.model, shown, timesteps.to(shown.dtype), condition)[:n]

    def _ask(self, model: nn.Module, shown: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        named: dict[str, Tensor] = {"timestep": timesteps}
        if self.prompts is not None:
            named["encoder_hidden_states"] = self.prompts[condition]  # NULL, -1, is the last row
        elif self.classes and "class_labels" in self.takes:
            named["class_labels"] = self._labels(condition)
        said = model(shown, **named)
        answer: Tensor = said[0] if isinstance(said, tuple) else said.sample
        return answer

    def _labels(self, condition: Tensor) -> Tensor:
        if self.null is None and bool((condition == NULL).any()):
            raise UsageError(
                f"{type(self.model).__name__} takes a class for every row: give a condition, or say which label stands "
                "for none: from_diffusers(..., null=1000)."
            )
        return torch.where(condition == NULL, self.null or 0, condition)


def _shape_of(config: Any) -> tuple[int, ...]:
    channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
    if channels is None or size is None:
        raise UsageError(
            "The model's config does not say a sample's shape; from_diffusers(model, scheduler, shape=(4, 64, 64))."
        )
    return (channels, size, size) if isinstance(size, int) else (channels, *size)


class DiffusersDenoiser(Denoiser):
    """See `from_diffusers`."""

    def __init__(self, asked: Asked, convention: Convention, scheduler: Any, name: str) -> None:
        self.asked, self.convention, self.scheduler, self.name = asked, convention, scheduler, name
        self.schedule, self.shape, self.classes = convention.schedule, asked.shape, asked.classes
        self.dtype, self.device = asked.dtype, asked.device

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.forward(x, t, condition)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        times = t.detach().cpu().numpy()
        shown = self.convention.shown(x, times)
        told = torch.from_numpy(self.convention.timesteps(times)).to(x.device)
        said = self.asked(shown, told, condition)[:, : x.shape[1]]  # a learned variance, in further channels, is left
        return self.convention.clean(shown, times, said)

    def settings(self) -> str:
        return f"{self.name} ({type(self.asked.model).__name__}, {dict(self.scheduler.config)})"


def from_diffusers(
    model: nn.Module,
    scheduler: Any,
    classes: int | None = None,
    null: int | None = None,
    prompts: Tensor | None = None,
    ask: Ask | None = None,
    shape: tuple[int, ...] | None = None,
    least: int = 16,
    name: str | None = None,
) -> DiffusersDenoiser:
    """A diffusers model as a denoiser: `DiffusionProcess(from_diffusers(unet, scheduler), DDIM(20))`.

    Of the scheduler only what it says of the model is used: its table of alphas (DDPM, DDIM, DPM++, Euler and others),
    flow matching's times or EDM's preconditioning, the prediction type, and clipping or thresholding of predictions.
    Preserves the model's expectation exactly where the scheduler's timesteps stand, and goes between them in straight
    lines of angle. A denoiser of a model that was distilled to few steps (LCM, TCD) is one too, but its solvers' law is
    not the model's.

    model: in evaluation mode from here on. classes: by default those of its config. null: the label that stands for no
    class. prompts: (k + 1, tokens, width) encoder_hidden_states for the conditions 0 to k - 1, and last for none. ask:
    ask(model, shown, timesteps, condition) for a model with another call. shape: of one row, by default the config's.
    least: rows a call at least; 16 make a row's result independent of the others to the bit on a CPU, 1 saves the time.
    Raises UsageError where diffusers is missing, and for a pair that is none of these.
    """
    require(scheduler)
    asked = Asked(model, classes, null, prompts, ask, shape, least)
    return DiffusersDenoiser(asked, convention_of(scheduler), scheduler, name or type(model).__name__)


def require(scheduler: Any) -> None:
    """UsageError unless diffusers is there, and this one of its schedulers."""
    try:
        from diffusers import SchedulerMixin
    except ImportError as error:
        raise UsageError("This needs diffusers: pip install 'anystep[diffusers]'.") from error
    if not isinstance(scheduler, SchedulerMixin):
        raise UsageError(f"from_diffusers(pipe.unet, pipe.scheduler): got {type(scheduler).__name__} for a scheduler.")
