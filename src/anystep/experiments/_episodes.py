"""Few-shot episodes, sinusoids and rotated digits, and the baseline MAML with its gradients of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.bayes.sequential.batched import MLP
from anystep.experiments._digits import digits

SHOTS = 10  # of a sinusoid
WAYS, SIDE = 5, 14


@dataclass(frozen=True)
class Episodes:
    """Tasks side by side: x (tasks, n, inputs), y (tasks, n, 1) or (tasks, n) of classes; `support` come first."""

    x: Tensor
    y: Tensor
    support: int

    def seen(self) -> tuple[Tensor, Tensor]:
        return self.x[:, : self.support], self.y[:, : self.support]

    def asked(self) -> tuple[Tensor, Tensor]:
        return self.x[:, self.support :], self.y[:, self.support :]


def sinusoids(tasks: int, asked: int, draw: torch.Generator) -> Episodes:
    """a sin(x + p), a in 0.1 to 5, p in 0 to pi, x in -5 to 5: `SHOTS` points to learn from and `asked` to answer."""
    a = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=draw)
    p = math.pi * torch.rand(tasks, 1, 1, generator=draw)
    x = 10 * torch.rand(tasks, SHOTS + asked, 1, generator=draw) - 5
    return Episodes(x, a * torch.sin(x + p), SHOTS)


class Rotated:
    """Five-way one-shot episodes of MNIST digits of 14 x 14, all of an episode at one angle, the classes in any order.

    split: "train" has 3,500 digits at angles below 240 degrees, "dev" 500 others at 240 to 300, "test" 1,000 others at
    300 to 360.
    """

    def __init__(self, split: str) -> None:
        x, y = digits()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(37))
        at, self.arc = {
            "train": (order[:3500], (0.0, 240.0)),
            "dev": (order[3500:4000], (240.0, 300.0)),
            "test": (order[4000:], (300.0, 360.0)),
        }[split]
        self.images = F.avg_pool2d(x[at], 2)
        self.rows = [torch.nonzero(y[at] == k)[:, 0] for k in range(10)]

    def episodes(self, tasks: int, asked: int, draw: torch.Generator) -> Episodes:
        """`tasks` episodes with one image of each class to learn from and `asked` to answer."""
        low, high = self.arc
        angles = torch.deg2rad(low + (high - low) * torch.rand(tasks, generator=draw))
        rows = []
        for _ in range(tasks):
            classes = torch.randperm(10, generator=draw)[:WAYS].tolist()
            picks = [self.rows[k][torch.randperm(len(self.rows[k]), generator=draw)[: 1 + asked]] for k in classes]
            rows.append(torch.stack(picks, 1).flatten())  # image by image, the classes in turn
        images = self.images[torch.stack(rows)]
        n = images.shape[1]
        labels = torch.arange(WAYS).repeat(1 + asked).expand(tasks, n)
        turned = turn(images.flatten(0, 1), angles.repeat_interleave(n)).view(tasks, n, SIDE * SIDE)
        return Episodes(turned, labels, WAYS)


def turn(images: Tensor, angles: Tensor) -> Tensor:
    """Images (n, 1, h, w) turned by angles (n,) in radians, between pixels linearly."""
    c, s, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    grid = F.affine_grid(torch.stack([c, -s, zero, s, c, zero], 1).view(-1, 2, 3), list(images.shape), False)
    return F.grid_sample(images, grid, align_corners=False)


class Maml:
    """MAML with gradients through its inner steps: a start from which `steps` steps of `rate` on a support set's mean
    loss answer its query set. Adam at `outer` on the query loss, the rate falling over the second half.

    loss: of outputs and answers, (tasks,), a mean over points. Source: Finn, Abbeel and Levine (2017).
    """

    def __init__(
        self,
        net: MLP,
        loss: Callable[[Tensor, Tensor], Tensor],
        steps: int,
        rate: float,
        seed: int,
        outer: float = 1e-3,
    ) -> None:
        self.net, self.loss, self.steps, self.rate, self.outer = net, loss, steps, rate, outer
        self.start = net.start(torch.Generator().manual_seed(seed)).requires_grad_()
        self.optimiser = torch.optim.Adam([self.start], outer)

    def adapt(self, x: Tensor, y: Tensor, steps: int, graph: bool = False) -> Tensor:
        """Weights (tasks, dim) after `steps` steps; with their graph when it is asked for."""
        theta = self.start.expand(len(x), -1)
        for _ in range(steps):
            theta = theta if graph else theta.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(self.net(theta, x), y).sum(), theta, create_graph=graph)
            theta = theta - self.rate * slope
        return theta if graph else theta.detach()

    def update(self, episodes: Episodes) -> None:
        x, y = episodes.asked()
        loss = self.loss(self.net(self.adapt(*episodes.seen(), self.steps, graph=True), x), y).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def fit(self, batch: Callable[[], Episodes], updates: int) -> Maml:
        for at in range(updates):
            self.optimiser.param_groups[0]["lr"] = self.outer * min(1.0, 0.02 + 2 * (1 - at / updates))
            self.update(batch())
        return self


def squared(out: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of each task."""
    return ((out - y) ** 2).flatten(1).mean(1)


def crossed(out: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy of each task."""
    return F.cross_entropy(out.mT, y, reduction="none").mean(1)
