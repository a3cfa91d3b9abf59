"""Observation self-guidance: an unconditional model of windows, led to agree with the places that were seen.

Source: Kollovieh et al., "Predict, Refine, Synthesize: Self-Guiding Diffusion Models for Probabilistic Time Series
Forecasting" (NeurIPS 2023), arXiv 2307.11494.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.denoiser import NULL, Denoiser, spread, weights_of
from anystep.diffusion.guidance.classifier_guided import GRADIENT, NOISIEST
from anystep.diffusion.guidance.guided import Guided
from anystep.errors import UsageError
from anystep.process import Floats

Loss = Literal["quantile", "square"]


class ObservationGuided(Guided):
    """E_null - scale (sigma^2 / alpha) grad loss(E_null(x), what was seen): conditions i * samples + s, s of window i.

    loss="square" is half the squared error of seen places: with an exact model and little noise, scale 1 / v stands for
    observations with variance v. loss="quantile" is the pinball loss of sample s at level (s + 1) / (samples + 1): each
    sample aims at another quantile, so only all of a window's samples together make a forecast. Preserves nothing
    exactly: the observation is compared with E[x_0 | x_t], not with x_0; the gap closes with the noise.

    seen: (windows, length), NaN where nothing was seen. A guided row takes three evaluations and calls: one forward,
    and a backward of two. Raises UsageError for shapes that do not fit and a scale that is not finite.
    """

    def __init__(
        self, model: Denoiser, seen: Floats, samples: int = 1, scale: float = 4.0, loss: Loss = "quantile"
    ) -> None:
        if seen.ndim != 2 or (seen.shape[1],) != model.shape or samples < 1 or not np.isfinite(scale):
            raise UsageError(
                f"ObservationGuided(model, seen, samples=100, scale=4.0): seen is (windows, {model.shape[0]}), NaN "
                f"where nothing was; got {seen.shape}, {samples} samples, scale {scale}."
            )
        if loss not in ("quantile", "square"):
            raise UsageError(f"ObservationGuided(loss={loss!r}): 'quantile' or 'square'.")
        super().__init__(model, f"{model.name}-observed")
        self.scale, self.loss, self.samples = float(scale), loss, samples
        self.classes = len(seen) * samples
        self.there = torch.from_numpy(~np.isnan(seen))
        self.seen = torch.from_numpy(np.nan_to_num(seen)).to(model.dtype)

    def settings(self) -> str:
        data = weights_of({"seen": self.seen, "there": self.there})
        return f"observed({data}, {self.samples}, {self.scale}, {self.loss}) of {self.model.settings()}"

    def evaluations(self, t: NDArray[np.float64]) -> NDArray[np.int64]:
        return GRADIENT * self.model.evaluations(t)

    def calls(self, t: NDArray[np.float64]) -> int:
        return GRADIENT * self.model.calls(t)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        schedule = self.model.schedule
        times = schedule.time(np.minimum(schedule.ratio(t.cpu().numpy()), NOISIEST))
        with torch.enable_grad():
            start = x.detach().requires_grad_()
            clean = self.model(start, torch.from_numpy(np.asarray(times)), torch.full_like(condition, NULL))
            (pull,) = torch.autograd.grad(self.losses(clean, condition).sum(), start)
        alpha, sigma = (spread(f(times), x) for f in (schedule.alpha, schedule.sigma))
        return (clean.detach() - self.scale * sigma**2 / alpha * pull).to(x.dtype)

    def losses(self, windows: Tensor, condition: Tensor) -> Tensor:
        """(n,) how badly windows agree with what was seen; 0 for rows without a condition."""
        which = condition.clamp_min(0)
        row, sample = which // self.samples, which % self.samples
        gap = torch.where(self.there[row], self.seen[row] - windows, 0.0)
        if self.loss == "square":
            each = 0.5 * gap**2
        else:
            level = ((sample + 1) / (self.samples + 1)).to(gap.dtype)[:, None]
            each = torch.maximum(level * gap, (level - 1) * gap)
        return each.sum(1) * (condition != NULL)
