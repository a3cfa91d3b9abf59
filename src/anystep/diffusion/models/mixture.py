"""Gaussian mixtures as denoisers: every expectation in closed form, so that samplers can be told right from wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.diffusion.classifier import Classifier
from anystep.diffusion.denoiser import NULL, Denoiser, weights_of
from anystep.diffusion.schedules import Flow, Schedule
from anystep.errors import UsageError


class MixtureDenoiser(Denoiser):
    """E[x_0 | x_t] of a Gaussian mixture in float64, exact at every time and every schedule.

    weights: (k,), summing to one. means: (k, d). covariances: (k, d, d). labels: (k,) the class of each component, so
    that a condition leaves the components of its class alone; by default each is its own class. Raises UsageError for
    shapes that do not fit.
    """

    dtype = torch.float64

    def __init__(
        self,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        schedule: Schedule | None = None,
        labels: ArrayLike | None = None,
        name: str = "mixture",
    ) -> None:
        self.weights, self.means, self.covariances = (
            np.asarray(a, dtype=np.float64) for a in (weights, means, covariances)
        )
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        if self.weights.shape != (k,) or self.covariances.shape != (k, d, d) or not np.isclose(self.weights.sum(), 1):
            raise UsageError(
                "MixtureDenoiser(weights, means, covariances): shapes (k,), (k, d), (k, d, d); the weights sum to one."
            )
        self.labels = np.arange(k) if labels is None else np.asarray(labels, dtype=np.int64)
        self.schedule, self.shape, self.classes, self.name = schedule or Flow(), (d,), int(self.labels.max()) + 1, name
        # In a component's own axes the noised covariance is diagonal at every time.
        spread, axes = np.linalg.eigh(self.covariances)
        self._spread, self._axes = torch.from_numpy(spread), torch.from_numpy(axes)
        self._means, self._logs = torch.from_numpy(self.means), torch.from_numpy(np.log(self.weights))
        self._labels = torch.from_numpy(self.labels)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.forward(x, t, condition)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        log_joint, clean = self._components(x, t, condition)
        return (log_joint.softmax(-1)[:, :, None] * clean).sum(1)

    def settings(self) -> str:
        arrays = {"weights": self.weights, "means": self.means, "covariances": self.covariances, "labels": self.labels}
        return f"{self.name} ({self.schedule!r}, {weights_of({k: torch.from_numpy(a) for k, a in arrays.items()})})"

    def log_density(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(n,) log-density of the noised law at x; of the class's where there is a condition."""
        log_joint, _ = self._components(x, t, condition)
        return log_joint.logsumexp(-1)

    def log_classes(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, classes) log-probability of each class, given what is at x; t may be 0."""
        log_joint, _ = self._components(x, t, torch.full((len(x),), NULL))
        of = [log_joint.masked_fill(self._labels != c, -torch.inf).logsumexp(-1) for c in range(self.classes)]
        return torch.stack(of, -1) - log_joint.logsumexp(-1, keepdim=True)

    def _components(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """log of weight times density under each component, (n, k), and the mean behind x in each, (n, k, d)."""
        times = t.detach().cpu().numpy()
        alpha, sigma = (torch.from_numpy(f(times))[:, None, None] for f in (self.schedule.alpha, self.schedule.sigma))
        variance = alpha**2 * self._spread + sigma**2  # (n, k, d) along the axes
        gap = x[:, None, :] - alpha * self._means
        # Summed elementwise: a matrix product may round a row by what else is in the batch.
        along = (gap[:, :, :, None] * self._axes).sum(-2)
        logs = -0.5 * (along**2 / variance + variance.log() + np.log(2 * np.pi)).sum(-1)
        pulled = alpha * self._spread / variance * along
        clean = self._means + (self._axes * pulled[:, :, None, :]).sum(-1)
        allowed = (condition[:, None] == NULL) | (condition[:, None] == self._labels)
        return (logs + self._weighed(condition, allowed)).masked_fill(~allowed, -torch.inf), clean

    def _weighed(self, condition: Tensor, allowed: Tensor) -> Tensor:
        """(n, k) log weights, normalised within the class."""
        logs = self._logs.expand(allowed.shape).masked_fill(~allowed, -torch.inf)
        return torch.where(allowed, logs - logs.logsumexp(-1, keepdim=True), 0.0)

    def draw(self, n: int, seed: int, condition: int | None = None) -> Tensor:
        """n rows of the mixture itself, or of one class."""
        rng = np.random.default_rng(seed)
        weights = np.where((condition is None) | (self.labels == condition), self.weights, 0.0)
        which = rng.choice(len(weights), n, p=weights / weights.sum())
        scaled = rng.standard_normal((n, self.shape[0])) * np.sqrt(self._spread.numpy()[which])
        return torch.from_numpy(self.means[which] + np.einsum("nij,nj->ni", self._axes.numpy()[which], scaled))


class MixtureClassifier(Classifier):
    """p(class | x_t) of a mixture, exact at every time."""

    def __init__(self, mixture: MixtureDenoiser) -> None:
        self.mixture, self.classes, self.name = mixture, mixture.classes, f"{mixture.name}-classes"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.forward(x, t)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mixture.log_classes(x, t)


def ring(modes: int = 8, radius: float = 3.0, spread: float = 0.3, schedule: Schedule | None = None) -> MixtureDenoiser:
    """`modes` equal round components on a circle."""
    angles = 2 * np.pi * np.arange(modes) / modes
    means = radius * np.stack([np.cos(angles), np.sin(angles)], -1)
    return MixtureDenoiser(
        np.full(modes, 1 / modes), means, np.tile(spread**2 * np.eye(2), (modes, 1, 1)), schedule, name="ring"
    )


def skewed(schedule: Schedule | None = None) -> MixtureDenoiser:
    """Three unequal, tilted components in two classes: what symmetric mixtures cannot show."""
    means = np.array([[1.5, 0.2], [-1.2, -0.8], [0.1, 1.9]])
    covariances = np.array([[[0.3, 0.2], [0.2, 0.4]], [[0.5, -0.3], [-0.3, 0.35]], [[0.1, 0.02], [0.02, 0.2]]])
    return MixtureDenoiser([0.5, 0.3, 0.2], means, covariances, schedule, labels=[0, 1, 1], name="skewed")
