"""TSDiff: one unconditional diffusion model of windows that predicts, refines others' forecasts, and synthesises.

Source: Kollovieh et al., "Predict, Refine, Synthesize: Self-Guiding Diffusion Models for Probabilistic Time Series
Forecasting" (NeurIPS 2023), arXiv 2307.11494.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL, Denoiser
from anystep.diffusion.guidance.classifier_guided import GRADIENT
from anystep.diffusion.sampling import sample
from anystep.diffusion.series.observed import Loss, ObservationGuided
from anystep.diffusion.solvers.ddim import DDIM
from anystep.diffusion.solvers.solver import Solver
from anystep.ledger import Cost
from anystep.process import Floats


@dataclass(frozen=True)
class Windows:
    """values: (windows, samples, length). cost: what all of them took."""

    values: Floats
    cost: Cost


@dataclass(frozen=True)
class TSDiff:
    """A denoiser of windows, used in three ways with the same weights.

    model: of shape (length,), unconditional. scale: of the guidance; it wants choosing for a data set. Preserves the
    model's law in `synthesise` as the solver does; `predict` and `refine` preserve nothing (see `ObservationGuided`),
    and are measured against laws that are known.
    """

    model: Denoiser
    scale: float = 4.0
    loss: Loss = "quantile"

    def predict(self, seen: Floats, samples: int = 100, solver: Solver | None = None, seed: int = 0) -> Windows:
        """Whole windows that agree with what was seen of each: a forecast where the end is missing, an imputation where
        the middle is.

        seen: (windows, length), NaN where nothing was seen. solver: by default a hundred ancestral steps, three
        evaluations each.
        """
        guided = ObservationGuided(self.model, seen, samples, self.scale, self.loss)
        drawn = sample(guided, solver or DDIM(100, eta=1.0), guided.classes, range(guided.classes), seed)
        return Windows(_rows(drawn.x, samples), drawn.cost)

    def refine(
        self,
        seen: Floats,
        base: Floats,
        iterations: int = 10,
        rate: float = 0.1,
        time: float = 0.3,
        seed: int = 0,
    ) -> Windows:
        """Another forecaster's windows, moved to where the model finds them likelier, and kept near to what they were.

        Each iteration descends |noise found in the noised window - noise put there|^2 / 2 at one noise level, plus
        `scale` times the loss between the window and its base, both over the whole window; three evaluations.

        base: (windows, samples, length), sorted by sample here so that each meets its own quantile. time: of the one
        noise level, as the model's schedule counts.
        """
        n, samples, length = base.shape
        ordered = np.sort(base, axis=1)
        start = np.where(np.isnan(seen)[:, None], ordered, np.nan_to_num(seen)[:, None]).reshape(-1, length)
        x = torch.from_numpy(start).to(self.model.dtype)
        towards = ObservationGuided(self.model, start, 1, 0.0, self.loss)
        towards.samples, keys = 1, lineage.roots(seed, (), np.arange(len(x)))
        levels = (torch.arange(len(x)) % samples + 1).to(x.dtype) / (samples + 1)
        for i in range(iterations):
            noise = torch.from_numpy(lineage.normals(keys, i, length)).to(x.dtype)
            x = x - rate * (self._unlikely(x, noise, time) + self.scale * slope(x, towards.seen, levels, self.loss))
        evaluations = GRADIENT * iterations * len(x)
        cost = Cost(evaluations=evaluations, calls=GRADIENT * iterations, flops=evaluations * self.model.flops())
        return Windows(_rows(x, samples), cost)

    def _unlikely(self, x: Tensor, noise: Tensor, time: float) -> Tensor:
        """The gradient in x of how badly the model finds the noise that was put on it."""
        schedule = self.model.schedule
        alpha, sigma = float(schedule.alpha(time)), float(schedule.sigma(time))
        with torch.enable_grad():
            start = x.detach().requires_grad_()
            noisy = alpha * start + sigma * noise
            times = torch.full((len(x),), time, dtype=torch.float64)
            clean = self.model(noisy, times, torch.full((len(x),), NULL))
            (gradient,) = torch.autograd.grad(0.5 * ((noisy - alpha * clean) / sigma - noise).square().sum(), start)
        return gradient

    def synthesise(self, n: int, solver: Solver | None = None, seed: int = 0) -> Windows:
        """n windows of the model's own, to train others on: (n, 1, length)."""
        drawn = sample(self.model, solver or DDIM(100, eta=1.0), n, seed=seed)
        return Windows(_rows(drawn.x, 1), drawn.cost)


def slope(x: Tensor, base: Tensor, levels: Tensor, loss: Loss) -> Tensor:
    """The gradient in x of the loss between windows and their bases."""
    if loss == "square":
        return x - base
    return torch.where(base > x, -levels[:, None], torch.where(base < x, 1 - levels[:, None], 0.0))


def _rows(x: Tensor, samples: int) -> Floats:
    return np.asarray(x.detach().to(torch.float64).cpu().numpy().reshape(-1, samples, x.shape[-1]))
