"""Frechet distance: between the Gaussians of two sets' means and covariances.

Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions" (1982); in a classifier's
features: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (NeurIPS 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from anystep.diffusion.evaluate.distances import flat


def frechet(x: Tensor, y: Tensor) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the unbiased covariances. Biased upwards for few rows:
    compare sets of equal size, and with `floor`."""
    x, y = flat(x, y)
    return frechet_gaussians(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())


def frechet_gaussians(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """The same between two Gaussians: (d,) and (d, d) float64."""
    covariance, other_covariance = torch.atleast_2d(covariance), torch.atleast_2d(other_covariance)
    values, axes = torch.linalg.eigh(covariance)
    root = (axes * values.clamp_min(0).sqrt()) @ axes.T
    # (A B)^(1/2) has the trace of (A^(1/2) B A^(1/2))^(1/2), which is symmetric.
    shared = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0).sqrt().sum()
    spread = covariance.trace() + other_covariance.trace() - 2 * shared
    return float((mean - other_mean).square().sum() + spread)
