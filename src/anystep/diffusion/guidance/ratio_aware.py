"""Ratio-aware guidance: the scale of each row falls with how much the class changes the velocity there.

Source: "RAAG: Ratio Aware Adaptive Guidance" (2025), arXiv 2508.03442.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.denoiser import Denoiser
from anystep.diffusion.guidance.classifier_free import ClassifierFree
from anystep.diffusion.solvers.solver import Level
from anystep.errors import UsageError

SMALLEST = 1e-6  # of an unconditional velocity: a row that does not move would have an infinite ratio


class RatioAware(ClassifierFree):
    """Classifier-free guidance at scale 1 + (scale - 1) exp(-damping ratio), ratio = |v_class - v_null| / |v_null|.

    Early, where there is only noise, the ratio is a property of the data, |mu_class - mu| / |mu - x| on a flow, and
    large; it falls as the sample forms, so the scale rises to `scale`. Preserves nothing, as all guidance. The same
    evaluations as classifier-free guidance.

    scale: the largest, finite. damping: 0 or more; 0 is classifier-free guidance at `scale` exactly. What is large
    depends on the data's ratios: read them with `ratios`. interval: as there. Raises UsageError for other dampings.
    """

    def __init__(
        self, model: Denoiser, scale: float, damping: float, interval: tuple[float, float] = (0.0, np.inf)
    ) -> None:
        if not 0 <= damping < np.inf:
            raise UsageError(f"RatioAware(damping={damping!r}): 0 or more; RatioAware(model, scale=7.0, damping=4.0).")
        super().__init__(model, scale, interval)
        self.name, self.damping = f"{model.name}-ratio-aware", float(damping)

    def settings(self) -> str:
        return f"ratio_aware(damping={self.damping}) as {super().settings()}"

    def scales(self, x: Tensor, t: Tensor, clean: Tensor, free: Tensor) -> NDArray[np.float64]:
        damped = -np.expm1(-self.damping * self.ratios(x, t, clean, free))
        return np.asarray(self.scale - (self.scale - 1.0) * damped)

    def ratios(self, x: Tensor, t: Tensor, clean: Tensor, free: Tensor) -> NDArray[np.float64]:
        """(n,) |v_class - v_null| / |v_null|, from what the model says behind x with the class and without."""
        level = Level.at(t.cpu().numpy(), self.schedule, x)
        guided, plain = level.velocity(x, clean), level.velocity(x, free)
        apart, size = ((v**2).flatten(1).sum(1).sqrt() for v in (guided - plain, plain))
        return np.asarray((apart / size.clamp_min(SMALLEST)).detach().cpu().numpy(), dtype=np.float64)


def ratio_aware_guidance(
    model: Denoiser, scale: float = 7.0, damping: float = 4.0, interval: tuple[float, float] = (0.0, np.inf)
) -> RatioAware:
    """`model`, guided by `RatioAware`."""
    return RatioAware(model, scale, damping, interval)
