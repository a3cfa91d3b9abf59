"""What guidance is made of: a denoiser around a denoiser."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.denoiser import Denoiser


class Guided(Denoiser):
    """A denoiser that asks another one and answers differently. It has the schedule, shape and classes of `model`."""

    def __init__(self, model: Denoiser, name: str) -> None:
        self.model, self.name = model, name
        self.schedule, self.shape, self.classes = model.schedule, model.shape, model.classes
        self.dtype, self.device = model.dtype, model.device

    def evaluations(self, t: NDArray[np.float64]) -> NDArray[np.int64]:
        return self.model.evaluations(t)

    def calls(self, t: NDArray[np.float64]) -> int:
        return self.model.calls(t)

    def flops(self) -> float:
        return self.model.flops()

    def beside(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.model.beside(t)

    def settings(self) -> str:
        return f"{self.name} of {self.model.settings()}"

    def answers(self, x: Tensor) -> tuple[Hashable, ...]:
        return self.model.answers(x)

    def texts(self, x: Tensor) -> tuple[str, ...]:
        return self.model.texts(x)
