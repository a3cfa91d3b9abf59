"""Which class is this noisy thing of? What classifier guidance differentiates."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Classifier(ABC):
    """log p(class | x_t), for rows at times of their own.

    classes: how many, numbered from 0. What computes numbers itself does it in `forward`, where a hook counts the rows.
    """

    name: str = "classifier"
    classes: int

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, classes) log-probabilities. x: (n, *shape). t: (n,) float64 times, 0 where x is clean. Each row depends
        on itself alone. Differentiable in x."""

    def settings(self) -> str:
        """What decides its answers, as text."""
        return self.name


class NetworkClassifier(Classifier):
    """A torch module as a classifier: module(x, t) gives logits (n, classes), or module(x) where it knows no times.

    timed: whether the module was trained on noisy things and takes their times. One that was not should only be shown
    clean things, as guidance through the denoiser does. least: rows a call at least, filled with copies, so that a
    row's result does not depend on how many there are.
    """

    def __init__(
        self, module: nn.Module, classes: int, timed: bool = False, name: str = "classifier", least: int = 16
    ) -> None:
        self.module, self.classes = module.eval().requires_grad_(False), classes
        self.timed, self.name, self.least = timed, name, least

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.forward(x, t)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        n, args = len(x), (x, t.to(x.dtype))[: 2 if self.timed else 1]
        if n < self.least:
            fill = torch.arange(self.least, device=x.device) % n
            args = tuple(a[fill] for a in args)
        logits: Tensor = self.module(*args)
        return logits[:n].log_softmax(-1)
