"""Small networks on small images, conditioned on a time and a class by scaling what layer norm leaves.

Source of the conditioning: Peebles and Xie, "Scalable Diffusion Models with Transformers" (ICCV 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FASTEST = 8.0  # radians a unit of time: faster features make derivatives in time, which distillation takes, explode
WAVES = FASTEST * 2 ** (torch.arange(-8, 1) / 2)


@dataclass(frozen=True)
class Shape:
    """size: of the images' side. width: of the residual stream. hidden: of a block's inner layer. told: of time and
    class. classes: the conditions, beside none."""

    size: int = 8
    width: int = 160
    hidden: int = 320
    blocks: int = 3
    told: int = 64
    classes: int = 10

    def network(self) -> DigitNet:
        return DigitNet(self)


def listening(told: int, classes: int) -> tuple[nn.Sequential, nn.Embedding]:
    """What turns a time into (n, told), and a class, of which the last is none."""
    time = nn.Sequential(nn.Linear(1 + 2 * len(WAVES), told), nn.SiLU(), nn.Linear(told, told))
    return time, nn.Embedding(classes + 1, told)


def tell(time: nn.Sequential, label: nn.Embedding, t: Tensor, condition: Tensor) -> Tensor:
    """(n, told) of times (n,) and classes (n,), -1 for none."""
    angles = t[:, None] * WAVES.to(t)
    told = time(torch.cat([t[:, None], angles.sin(), angles.cos()], -1))
    return F.silu(told + label(condition % label.num_embeddings))


class Block(nn.Module):
    """x + gate MLP(scale norm(x) + shift), with scale, shift and gate from what is told; at first x itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width, elementwise_affine=False)
        self.told = nn.Linear(shape.told, 3 * shape.width)
        self.up, self.down = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift, gate = self.told(told).chunk(3, -1)
        return x + gate * self.down(F.silu(self.up((1 + scale) * self.norm(x) + shift)))


class DigitNet(nn.Module):
    """(n, size, size) at times (n,) of classes (n,), -1 for none, to something of the images' shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, pixels = shape, shape.size**2
        self.time, self.label = listening(shape.told, shape.classes)
        self.enter, self.leave = nn.Linear(pixels, shape.width), nn.Linear(shape.width, pixels)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width)
        nn.init.normal_(self.label.weight, std=0.5)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        told = tell(self.time, self.label, t, condition)
        h = self.enter(x.flatten(1))
        for block in self.blocks:
            h = block(h, told)
        return self.leave(self.norm(h)).reshape(x.shape)
