"""A small network for a log-likelihood: trained on points of the unit cube, asked one point at a time.

Its loss is matched to what nested sampling can bear. With d = best - log L the depth of a point below the best, it
learns asinh(d / 4): an error there is an error in nats near the best, and a share of the depth far below it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from anystep.averaged import averaged
from anystep.bayes.nested.plain import Floats
from anystep.errors import UsageError

DEPTH = 4.0  # nats below the best from where an error counts as a share of the depth


@dataclass(frozen=True)
class Architecture:
    """A network with `layers` hidden layers of `width` units, and how it is trained.

    rate: AdamW's. updates: steps of `batch` points. average: how slowly the running average of the weights follows.
    """

    layers: int = 3
    width: int = 100
    rate: float = 4e-3
    updates: int = 1_600
    batch: int = 128
    average: float = 0.995

    def __post_init__(self) -> None:
        for name in ("layers", "width", "rate", "updates", "batch"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Architecture({name}={getattr(self, name)!r}): give a positive number")


class Network:
    """A trained network as a function of the unit cube, in numpy: (dim,) to a number, (n, dim) to (n,).

    Two points never have the same value: `TIE` nats of a fixed irrational direction break what saturation makes equal,
    for nested sampling needs a strict order.
    """

    TIE = 1e-9

    def __init__(self, net: nn.Sequential, centre: Floats, whiten: Floats, best: float) -> None:
        self.layers = [
            (m.weight.detach().double().numpy().T.copy(), m.bias.detach().double().numpy())
            for m in net
            if isinstance(m, nn.Linear)
        ]
        self.centre, self.whiten, self.best = centre, whiten, best
        self.direction = self.TIE * np.sqrt(2.0 + np.arange(len(centre)))

    def __call__(self, u: Floats) -> Floats:
        x = (u - self.centre) @ self.whiten
        for i, (weight, bias) in enumerate(self.layers):
            x = np.tanh(x) if i else x
            x = x @ weight + bias
        return self.best - DEPTH * np.sinh(np.clip(x[..., 0], -5.0, 50.0)) + u @ self.direction


def whitening(u: Floats) -> tuple[Floats, Floats]:
    """Centre (dim,) and matrix (dim, dim) that give these points zero mean and unit covariance."""
    centre = u.mean(0)
    spread = np.atleast_2d(np.cov(u.T)) + 1e-12 * np.eye(u.shape[1])
    return centre, np.linalg.inv(np.linalg.cholesky(spread)).T


def fit(u: Floats, logl: Floats, best: float, architecture: Architecture, rng: np.random.Generator) -> Network:
    """A network of this architecture for these points (n, dim) and values (n,); all its randomness comes from `rng`."""
    centre, whiten = whitening(u)
    x = torch.from_numpy((u - centre) @ whiten).float()
    y = torch.from_numpy(np.arcsinh((best - logl) / DEPTH)).float()[:, None]
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    sizes = [u.shape[1], *[architecture.width] * architecture.layers, 1]
    stack: list[nn.Module] = []
    for i, (into, out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        linear = nn.utils.skip_init(nn.Linear, into, out)
        with torch.no_grad():
            linear.weight.normal_(0.0, 1 / math.sqrt(into), generator=generator)
            linear.bias.uniform_(-1.0, 1.0, generator=generator) if i == 0 else linear.bias.zero_()
        stack += [nn.Tanh(), linear] if i else [linear]
    net = nn.Sequential(*stack)
    mean = y.mean()

    def loss() -> torch.Tensor:
        rows = torch.randint(len(x), (architecture.batch,), generator=generator)
        return nn.functional.mse_loss(net(x[rows]) + mean, y[rows])

    averaged(net, architecture, loss, decay=1e-4)
    with torch.no_grad():
        stack[-1].bias += mean  # type: ignore[operator]
    return Network(net, centre, whiten, best)
