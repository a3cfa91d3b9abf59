"""A small U-shaped convolutional network, conditioned on a time and a class by scaling what group norm leaves.

Source of the shape: Ronneberger et al., "U-Net" (MICCAI 2015); in diffusion: Ho et al., "Denoising Diffusion
Probabilistic Models" (NeurIPS 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.diffusion.models.digit_net import listening, tell


@dataclass(frozen=True)
class ConvShape:
    """size: of the images' side, a multiple of 4. channels: at half and quarter size; pixels enter two by two.
    blocks: at each of these sizes, on the way down and on the way up. told: of time and class."""

    size: int = 28
    channels: tuple[int, int] = (32, 64)
    blocks: int = 2
    told: int = 64
    classes: int = 10

    def network(self) -> ConvNet:
        return ConvNet(self)


class Residual(nn.Module):
    """x + convolution of (scale norm(convolution of x) + shift), with scale and shift from what is told."""

    def __init__(self, inward: int, outward: int, told: int) -> None:
        super().__init__()
        self.skip = nn.Identity() if inward == outward else nn.Conv2d(inward, outward, 1)
        self.one, self.two = nn.Conv2d(inward, outward, 3, padding=1), nn.Conv2d(outward, outward, 3, padding=1)
        self.norm, self.told = nn.GroupNorm(8, outward, affine=False), nn.Linear(told, 2 * outward)
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.two(F.silu((1 + scale) * self.norm(self.one(F.silu(x))) + shift))


class ConvNet(nn.Module):
    """(n, size, size) at times (n,) of classes (n,), -1 for none, to something of the images' shape."""

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        self.shape, told, (half, quarter) = shape, shape.told, shape.channels
        self.time, self.label = listening(told, shape.classes)
        self.enter = nn.Conv2d(4, half, 3, padding=1)
        self.down = nn.ModuleList(Residual(half, half, told) for _ in range(shape.blocks))
        inward = [half, *(shape.blocks - 1) * [quarter]]
        self.middle = nn.ModuleList(Residual(n, quarter, told) for n in inward)
        inward = [quarter + half, *(shape.blocks - 1) * [half]]
        self.up = nn.ModuleList(Residual(n, half, told) for n in inward)
        self.leave = nn.Conv2d(half, 4, 3, padding=1)
        # Where in the image a feature stands: convolutions alone would have to find out from the border.
        self.place = nn.Parameter(0.02 * torch.randn(1, half, shape.size // 2, shape.size // 2))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        told, h = tell(self.time, self.label, t, condition), F.pixel_unshuffle(x[:, None], 2)
        h = self.enter(h) + self.place
        for part in self.down:
            h = part(h, told)
        kept, h = h, F.avg_pool2d(h, 2)
        for part in self.middle:
            h = part(h, told)
        h = torch.cat([F.interpolate(h, scale_factor=2.0), kept], 1)
        for part in self.up:
            h = part(h, told)
        return F.pixel_shuffle(self.leave(F.silu(h)), 2)[:, 0]
