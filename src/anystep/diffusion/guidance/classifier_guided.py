"""Classifier guidance: up the gradient of a classifier's log-probability, at the noisy thing or at what lies behind.

Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis" (NeurIPS 2021), for the gradient at x_t;
Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems" (ICLR 2023), for the gradient through
the denoiser.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.classifier import Classifier
from anystep.diffusion.denoiser import NULL, Denoiser, spread
from anystep.diffusion.guidance.guided import Guided
from anystep.errors import UsageError

GRADIENT = 3  # rows that a gradient through a network counts as: one forward, and a backward pass of two
NOISIEST = 1e3  # sigma / alpha at most: without any signal the gradient is 0 / 0, so it is taken where a little is left


class ClassifierGuided(Guided):
    """E_null + scale (sigma^2 / alpha) grad log p(class | x_t): the unconditional model and a classifier.

    Preserves, with an exact classifier of noisy things and scale 1, the conditional law exactly: its score is the
    unconditional one plus this gradient. Scale 0 is the unconditional model. Other scales preserve nothing.
    through="clean" asks a classifier of clean things about E[x_0 | x_t] and differentiates through the denoiser:
    biased even at scale 1, since p(class | E[x_0 | x_t]) is not E[p(class | x_0) | x_t]; the gap closes with the noise.

    model: asked without a condition. classifier: of things at any time for through="state", of clean ones for "clean".
    interval: the noise levels sigma / alpha, from below to above, between which it guides; a trained classifier says
    little above 10 or so, and its error is multiplied by sigma^2 / alpha. Above 1,000 a row is treated as at 1,000.

    Cost: a gradient through a network counts three rows and three calls, one forward and a backward of two. So a guided
    row takes 1 + 3 evaluations through the state and 3 + 3 through the clean thing, for a model that takes 1; the
    classifier's rows are charged the FLOPs of the model's. Raises UsageError for a scale that is not finite or an
    interval that runs backwards.
    """

    def __init__(
        self,
        model: Denoiser,
        classifier: Classifier,
        scale: float = 1.0,
        through: Literal["state", "clean"] = "state",
        interval: tuple[float, float] = (0.0, np.inf),
    ) -> None:
        if not np.isfinite(scale) or not 0 <= interval[0] < interval[1] or through not in ("state", "clean"):
            raise UsageError(
                f"ClassifierGuided(scale={scale!r}, through={through!r}, interval={interval!r}): call "
                "ClassifierGuided(model, classifier, scale=2.0, through='state', interval=(0.0, 10.0))."
            )
        super().__init__(model, f"{model.name}-classifier")
        self.classifier, self.scale, self.through, self.interval = classifier, float(scale), through, interval
        self.classes = classifier.classes

    def settings(self) -> str:
        how = f"scale={self.scale}, through={self.through}, interval={self.interval}"
        return f"classifier_guided({self.classifier.settings()}, {how}) of {self.model.settings()}"

    def guides(self, t: NDArray[np.float64]) -> NDArray[np.bool_]:
        level = self.model.schedule.ratio(t)
        return np.asarray((self.scale != 0) & (level >= self.interval[0]) & (level <= self.interval[1]))

    def evaluations(self, t: NDArray[np.float64]) -> NDArray[np.int64]:
        plain, guides = self.model.evaluations(t), self.guides(t)
        through = GRADIENT if self.through == "clean" else 1
        return np.asarray(np.where(guides, through * plain + GRADIENT, plain))

    def calls(self, t: NDArray[np.float64]) -> int:
        guides = self.guides(t)
        asked = GRADIENT * int(guides.any())
        if self.through == "state":
            return self.model.calls(t) + asked
        return self.model.calls(t[~guides]) + GRADIENT * self.model.calls(t[guides]) + asked

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        guides, free = torch.from_numpy(self.guides(t.cpu().numpy())).to(x.device), torch.full_like(condition, NULL)
        if not guides.any():
            return self.model(x, t, free)
        clean = torch.zeros_like(x)
        plain = ~guides if self.through == "clean" else torch.ones_like(guides)
        if plain.any():
            clean[plain] = self.model(x[plain], t[plain], free[plain])
        said, pull = self._pulled(x[guides], t[guides], condition[guides])
        clean[guides] = (clean[guides] if said is None else said) + self.scale * pull
        return clean

    def _pulled(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor | None, Tensor]:
        """What the model says of x, where it was asked on the way, and sigma^2 / alpha times the gradient."""
        schedule, onward = self.model.schedule, torch.is_grad_enabled() and x.requires_grad
        times = schedule.time(np.minimum(schedule.ratio(t.cpu().numpy()), NOISIEST))
        at = torch.from_numpy(np.asarray(times)).to(x.device)
        with torch.enable_grad():
            start = x if onward else x.detach().requires_grad_()
            if self.through == "clean":
                shown = said = self.model(start, at, torch.full_like(condition, NULL))
                logs = self.classifier(shown, torch.zeros_like(at))
            else:
                said, logs = None, self.classifier(start, at)
            chosen = logs.gather(1, condition.clamp_min(0)[:, None])[:, 0]
            total = torch.where(condition == NULL, torch.zeros_like(chosen), chosen).sum()
            (gradient,) = torch.autograd.grad(total, start, create_graph=onward)
        alpha, sigma = (spread(f(times), x) for f in (schedule.alpha, schedule.sigma))
        if said is not None and not onward:
            said = said.detach()
        return said, (sigma**2 / alpha * gradient).to(x.dtype)
