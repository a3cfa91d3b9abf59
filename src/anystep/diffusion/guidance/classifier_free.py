"""Classifier-free guidance: away from what the model says of anything, towards what it says of the class.

Source: Ho and Salimans, "Classifier-Free Diffusion Guidance" (NeurIPS workshop 2021); the interval: Kynkaanniemi et
al., "Applying Guidance in a Limited Interval" (NeurIPS 2024).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.denoiser import NULL, Denoiser, spread
from anystep.diffusion.guidance.guided import Guided
from anystep.errors import UsageError


class ClassifierFree(Guided):
    """E_null + scale (E_class - E_null): scale 1 is the conditional model itself, 0 the unconditional one.

    Preserves nothing for other scales: above 1 samples crowd at the class's typical ones, and no noise level's law is
    that of a diffusion any more. Two evaluations a row where it guides, one outside the interval and at scale 1.

    scale: a real number; the field's w (diffusers' guidance_scale). interval: the noise levels sigma / alpha, from
    below to above, between which it guides; outside, scale is 1. Raises UsageError for a model without classes.
    """

    def __init__(self, model: Denoiser, scale: float, interval: tuple[float, float] = (0.0, np.inf)) -> None:
        if not model.classes:
            raise UsageError(f"{model.name} takes no condition, so there is nothing to guide to; use one with classes.")
        if not np.isfinite(scale) or not 0 <= interval[0] < interval[1]:
            raise UsageError(
                f"ClassifierFree(scale={scale!r}, interval={interval!r}): a finite scale, and 0 <= low < high."
            )
        super().__init__(model, f"{model.name}-cfg")
        self.scale, self.interval = float(scale), interval

    def settings(self) -> str:
        return f"classifier_free(scale={self.scale}, interval={self.interval}) of {self.model.settings()}"

    def guides(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        level = self.model.schedule.ratio(t)
        return np.asarray((self.scale != 1.0) & (level >= self.interval[0]) & (level <= self.interval[1]))

    def evaluations(self, t: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(self.model.evaluations(t) * (1 + self.guides(t)))

    def calls(self, t: NDArray[np.float64]) -> int:
        return self.model.calls(np.concatenate([t, t[self.guides(t)]]))

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        rows = np.flatnonzero(self.guides(t.cpu().numpy()))
        both = (
            torch.cat([x, x[rows]]),
            torch.cat([t, t[rows]]),
            torch.cat([condition, torch.full_like(condition[rows], NULL)]),
        )
        said = self.model(*both)
        clean, free = said[: len(x)], said[len(x) :]
        scale = spread(self.scales(x[rows], t[rows], clean[rows], free), x)
        guided = clean.clone()
        guided[rows] = (free + scale * (clean[rows] - free)).to(x.dtype)
        return guided

    def scales(self, x: Tensor, t: Tensor, clean: Tensor, free: Tensor) -> NDArray[np.float64]:
        """(n,) the scale of each guided row; methods that adapt it answer this otherwise."""
        return np.full(len(x), self.scale)
