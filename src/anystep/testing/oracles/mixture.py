"""Diffusion of a Gaussian mixture in two dimensions, its score in closed form and its reverse steps exact."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Limit
from anystep.process import Floats, Potential, Status, Stepped
from anystep.stepwise import Moved, Stepwise
from anystep.testing.oracles.gaussian import Points, log_normal
from anystep.testing.oracles.judges import JudgePotential


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture: weights (k,), means (k, d), covariances (k, d, d)."""

    weights: Floats
    means: Floats
    covariances: Floats

    def mean(self) -> Floats:
        return np.asarray(self.weights @ self.means)

    def log_density(self, x: Floats) -> Floats:
        parts = [log_normal(x, m, c) for m, c in zip(self.means, self.covariances, strict=True)]
        return np.asarray(np.logaddexp.reduce(np.stack(parts, -1) + np.log(self.weights), axis=-1))

    def noised(self, sigma: float) -> Mixture:
        """The law of x + sigma z."""
        return Mixture(self.weights, self.means, self.covariances + sigma**2 * np.eye(self.means.shape[1]))

    def tilted(self, linear: Floats) -> tuple[Mixture, float]:
        """The mixture proportional to p(x) exp(linear . x), and the log of its normalising constant."""
        shift = self.covariances @ linear
        logs = np.log(self.weights) + self.means @ linear + 0.5 * shift @ linear
        log_z = float(np.logaddexp.reduce(logs))
        return Mixture(np.exp(logs - log_z), self.means + shift, self.covariances), log_z

    def pulled(self, centre: Floats, variance: float) -> tuple[Mixture, float]:
        """The mixture proportional to p(x) exp(-|x - centre|^2 / (2 variance)), and its log constant."""
        eye = variance * np.eye(len(centre))
        gain = self.covariances @ np.linalg.inv(self.covariances + eye)
        means = self.means + np.einsum("kij,kj->ki", gain, centre - self.means)
        covariances = self.covariances - gain @ self.covariances
        logs = np.array([log_normal(centre, m, c + eye) for m, c in zip(self.means, self.covariances, strict=True)])
        logs = logs + np.log(self.weights) + np.linalg.slogdet(2 * np.pi * eye)[1] / 2
        log_z = float(np.logaddexp.reduce(logs))
        return Mixture(np.exp(logs - log_z), means, covariances), log_z


class MixtureDiffusion(Stepwise):
    """Ancestral sampling from noise level sigma_max to 0 in `steps` geometric steps.

    A step draws from the exact reverse kernel p(x_b | x_a), itself a mixture, and the start from the exact noised law;
    so the finished states follow the mixture itself, however few the steps. One step is one evaluation of the denoiser.
    """

    logp = "density"
    states = Points
    law = Mixture(
        np.array([0.5, 0.3, 0.2]),
        np.array([[1.5, 0.2], [-1.2, -0.8], [0.1, 1.9]]),
        np.array([[[0.3, 0.2], [0.2, 0.4]], [[0.5, -0.3], [-0.3, 0.35]], [[0.1, 0.02], [0.02, 0.2]]]),
    )

    def __init__(self, steps: int = 6, sigma_max: float = 8.0, sigma_min: float = 0.1, name: str = "mixture") -> None:
        if steps < 2 or not 0 < sigma_min < sigma_max:
            raise UsageError(
                f"MixtureDiffusion(steps={steps}, sigma_max={sigma_max}, sigma_min={sigma_min}): steps is 2 or more, "
                "and 0 < sigma_min < sigma_max; call MixtureDiffusion(steps=6)."
            )
        self.steps, self.horizon, self.name = steps, steps, name
        self.sigmas = np.concatenate([np.geomspace(sigma_max, sigma_min, steps), [0.0]])
        noised = [self.law.noised(s).covariances for s in self.sigmas]
        self.gains = [b @ np.linalg.inv(a) for a, b in zip(noised, noised[1:], strict=False)]  # (k, 2, 2) a step
        self.spreads = [b - g @ b for b, g in zip(noised[1:], self.gains, strict=True)]
        self.roots = [np.linalg.cholesky(s) for s in self.spreads]

    def forward(self, rows: Floats, sigma: Floats) -> Floats:
        """Log-density of x under each weighted component at its noise level, (n, k): what the network would compute."""
        return self._log_joint(rows, sigma)

    def _log_joint(self, rows: Floats, sigma: Floats) -> Floats:
        eye = np.eye(2)
        covariances = self.law.covariances + sigma[:, None, None, None] ** 2 * eye
        gap = rows[:, None, :] - self.law.means
        det = covariances[..., 0, 0] * covariances[..., 1, 1] - covariances[..., 0, 1] ** 2
        adjoint = covariances[..., ::-1, ::-1] * np.array([[1, -1], [-1, 1]])
        square = (gap[..., :, None] * adjoint * gap[..., None, :]).sum((-1, -2)) / det
        return np.asarray(np.log(self.law.weights) - 0.5 * square - 0.5 * np.log(det) - np.log(2 * np.pi))

    def denoised(self, x: Floats, sigma: Floats) -> Floats:
        """E[x_0 | x] at each noise level, (n, 2)."""
        logs = self._log_joint(x, sigma)
        p = np.exp(logs - logs.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        inverse = np.linalg.inv(self.law.covariances + sigma[:, None, None, None] ** 2 * np.eye(2))
        gap = x[:, None, :] - self.law.means
        clean = self.law.means + np.einsum("kij,nkjl,nkl->nki", self.law.covariances, inverse, gap)
        return np.asarray((p[..., None] * clean).sum(1))

    def score(self, x: Floats, sigma: Floats) -> Floats:
        """Gradient of the log-density of the noised law, (n, 2), by Tweedie's formula; sigma (n,), positive."""
        return np.asarray((self.denoised(x, sigma) - x) / sigma[:, None] ** 2)

    def begin(self, keys: Keys) -> Points:
        noised = self.law.noised(self.sigmas[0])
        which = lineage.choose(np.tile(noised.weights, (len(keys), 1)), lineage.uniforms(keys, 0, 4))
        roots = np.linalg.cholesky(noised.covariances)[which]
        x = noised.means[which] + (roots * lineage.normals(keys, 0, 2)[:, None, :]).sum(-1)
        return Points(x, np.zeros(len(keys), dtype=np.int64))

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        begun = super().start(keys, limit)
        return replace(begun, logp=self.law.noised(self.sigmas[0]).log_density(begun.states.x))

    def advance(self, states: Points, keys: Keys) -> Moved:
        n, t = len(states), states.t
        logs = self.forward(states.x, self.sigmas[t])
        p = np.exp(logs - logs.max(-1, keepdims=True))
        which = lineage.choose(p, lineage.uniforms(keys, t + 1, 4))
        gain = np.array(self.gains)[t]
        means = self.law.means + (gain * (states.x[:, None, :] - self.law.means)[:, :, None, :]).sum(-1)
        z = lineage.normals(keys, t + 1, 2)
        x = means[np.arange(n), which] + (np.array(self.roots)[t, which] * z[:, None, :]).sum(-1)
        logp = self._log_kernel(x, means, t, p / p.sum(-1, keepdims=True))
        status = np.where(t + 1 == self.steps, np.int8(Status.DONE), np.int8(Status.LIVE))
        return Moved(Points(x, t + 1), status, logp, np.zeros(n))

    def _log_kernel(self, x: Floats, means: Floats, t: NDArray[np.int64], p: Floats) -> Floats:
        spread = np.array(self.spreads)[t]
        gap = x[:, None, :] - means
        square = (gap * np.linalg.solve(spread, gap[..., None])[..., 0]).sum(-1)
        logs = -0.5 * square - 0.5 * np.linalg.slogdet(2 * np.pi * spread)[1]
        with np.errstate(divide="ignore"):
            return np.asarray(np.logaddexp.reduce(logs + np.log(p), axis=-1))

    def answers(self, states: Points) -> tuple[Hashable, ...]:
        return tuple(tuple(x) for x in states.x.tolist())

    def linear(self, c: Floats) -> Potential:
        """c . x of a finished state; of an unfinished one c . E[x_0 | x], which steers well. One evaluation a state."""
        direction = np.asarray(c, dtype=np.float64)
        return JudgePotential(lambda s: (self.denoised(s.x, self.sigmas[s.t]) * direction).sum(-1), "linear")
