"""Likelihoods whose evidence is known: correlated Gaussians, a skewed product of Gumbels, supernovae under wCDM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from anystep.process import Floats

LIGHT = 299_792.458  # km/s
HUBBLE = 70.0  # km/s/Mpc
NODES, SHARES = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class Target:
    """A likelihood and a prior on the unit cube, with the true evidence and the posterior's moments."""

    name: str
    dim: int
    log_likelihood: Callable[[Floats], float]
    prior: Callable[[Floats], Floats]
    logz: float
    mean: Floats
    sd: Floats


def _box(low: Floats, high: Floats) -> Callable[[Floats], Floats]:
    return lambda u: low + (high - low) * u


def gaussian(shift: float = -500.0, inner: float = -np.inf) -> Target:
    """Correlations of 0.8, -0.5 and -0.1, scales that differ by four, a centre off the middle; and a large constant.

    inner: the log height of a second Gaussian at the same place, eight times as narrow in squared distance: what a
    network that learned from farther out cannot know.
    """
    root = np.array([[1.0, 0.0, 0.0], [0.4, 0.3, 0.0], [-1.0, 0.6, 1.6]])
    centre, covariance = np.array([1.5, -0.7, 2.0]), root @ root.T
    low, high = np.full(3, -12.0), np.full(3, 12.0)
    inverse = np.linalg.inv(covariance)

    def log_likelihood(x: Floats) -> float:
        depth = 0.5 * (x - centre) @ inverse @ (x - centre)
        return float(shift + np.logaddexp(-depth, inner - 8 * depth))

    whole = 1.5 * np.log(2 * np.pi) + 0.5 * np.linalg.slogdet(covariance)[1]
    share = np.exp(inner) / 8**1.5
    logz = shift + whole + np.log1p(share) - np.log(high - low).sum()
    sd = np.sqrt(np.diag(covariance) * (1 + share / 8) / (1 + share))
    name = "correlated Gaussian" if inner == -np.inf else "Gaussian with an inner peak"
    return Target(name, 3, log_likelihood, _box(low, high), float(logz), centre, sd)


def skewed() -> Target:
    """Three log-Gammas, density exp(x - e^x), behind a matrix that is neither diagonal nor symmetric."""
    mix = np.array([[1.0, 0.4, -0.3], [-0.5, 0.8, 0.2], [0.3, 0.6, 1.2]])
    low, high = np.full(3, -15.0), np.full(3, 12.0)
    inverse = np.linalg.inv(mix)

    def log_likelihood(t: Floats) -> float:
        x = inverse @ t
        return float((x - np.exp(x)).sum())

    logz = np.linalg.slogdet(mix)[1] - np.log(high - low).sum()
    mean, covariance = -np.euler_gamma * mix.sum(1), np.pi**2 / 6 * mix @ mix.T
    return Target("skewed", 3, log_likelihood, _box(low, high), logz, mean, np.sqrt(np.diag(covariance)))


def distance_modulus(matter: Floats, w: Floats, z: Floats) -> Floats:
    """Distance moduli (..., len(z)) in a flat universe of matter and dark energy of constant equation of state w."""
    at = 0.5 * z[:, None] * (NODES + 1)
    m, w = np.asarray(matter)[..., None, None], np.asarray(w)[..., None, None]
    rate = np.sqrt(m * (1 + at) ** 3 + (1 - m) * (1 + at) ** (3 * (1 + w)))
    far = LIGHT / HUBBLE * (1 + z) * 0.5 * z * (SHARES / rate).sum(-1)
    return np.asarray(5 * np.log10(far) + 25)


@dataclass(frozen=True)
class Supernovae:
    """Redshifts, moduli, and the inverse of a covariance with scatter and with systematics that neighbours share."""

    z: Floats
    modulus: Floats
    precision: Floats
    constant: float

    @classmethod
    def drawn(cls, n: int = 150, seed: int = 0) -> Supernovae:
        rng = np.random.default_rng(seed)
        z = np.sort(rng.uniform(0.02, 1.4, n))
        shared = 0.03**2 * np.exp(-np.abs(z[:, None] - z) / 0.2) + 0.02**2 * np.outer(z, z)
        covariance = shared + np.diag(0.1**2 + (0.05 * z) ** 2)
        noise = np.linalg.cholesky(covariance) @ rng.standard_normal(n)
        constant = -0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
        modulus = np.asarray(distance_modulus(np.array(0.3), np.array(-1.0), z) + noise, dtype=np.float64)
        return cls(z, modulus, np.asarray(np.linalg.inv(covariance), dtype=np.float64), float(constant))

    def log_likelihood(self, x: Floats) -> float:
        apart = self.modulus - distance_modulus(x[0], x[1], self.z) - x[2]
        return float(self.constant - 0.5 * apart @ self.precision @ apart)

    def on_a_grid(self, low: Floats, high: Floats, n: int) -> tuple[float, Floats, Floats]:
        """log evidence, mean and sd by the midpoint rule on n cells a parameter."""
        sides = [lo + (hi - lo) * (np.arange(n) + 0.5) / n for lo, hi in zip(low, high, strict=True)]
        rows = []
        for m in sides[0]:
            apart = self.modulus - distance_modulus(np.full(n, m), sides[1], self.z)
            square = np.einsum("ai,ij,aj->a", apart, self.precision, apart)
            cross, offset = (apart @ self.precision).sum(1), sides[2][:, None]
            rows.append((self.constant - 0.5 * (square - 2 * offset * cross + offset**2 * self.precision.sum())).T)
        logl = np.array(rows)  # (n, n, n): matter, w, offset
        p = np.exp(logl - logl.max())
        logz = float(np.log(p.mean()) + logl.max())
        p /= p.sum()
        margins = [p.sum(axis=tuple({0, 1, 2} - {i})) for i in range(3)]
        mean = np.array([q @ side for q, side in zip(margins, sides, strict=True)])
        second = np.array([q @ side**2 for q, side in zip(margins, sides, strict=True)])
        return logz, mean, np.sqrt(second - mean**2)


@cache
def supernovae(cells: int = 150) -> Target:
    """Matter, equation of state and a common offset of 150 synthetic supernovae; evidence by quadrature."""
    data, low, high = Supernovae.drawn(), np.array([0.02, -2.5, -0.3]), np.array([0.7, -0.3, 0.3])
    logz, mean, sd = data.on_a_grid(low, high, cells)
    return Target("wCDM supernovae", 3, data.log_likelihood, _box(low, high), logz, mean, sd)


def rough(x: Floats) -> float:
    """A Gaussian under a ripple of three nats, far finer than any set of points can show."""
    return float(-0.5 * (x**2).sum() / 0.25**2 + 3 * np.sin(1e6 * x.sum() + 7e5 * x[0]))


def unlearnable() -> Target:
    """`rough`; its evidence is not known, and not needed."""
    nothing = np.full(3, np.nan)
    return Target("unlearnable", 3, rough, _box(np.full(3, -1.0), np.full(3, 1.0)), float("nan"), nothing, nothing)
