"""A network for images made patch by patch: a body that reads the patches that are there, a head for one that is not.

Source of the split: Li et al., "Autoregressive Image Generation without Vector Quantization" (NeurIPS 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.diffusion.models.digit_net import FASTEST


@dataclass(frozen=True)
class PatchShape:
    """size: of the images' side. patch: of a patch's side. body: width and blocks of what reads the image. told: what
    it tells the head of each patch. head: width and blocks. classes: the conditions, beside none."""

    size: int = 8
    patch: int = 2
    body: int = 224
    body_blocks: int = 2
    told: int = 32
    head: int = 64
    head_blocks: int = 2
    classes: int = 10

    @property
    def patches(self) -> int:
        return (self.size // self.patch) ** 2

    @property
    def pixels(self) -> int:
        """Of one patch."""
        return self.patch**2


class Residual(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(F.silu(self.up(self.norm(x))))
        return out


class HeadBlock(nn.Module):
    """x + gate MLP(scale norm(x) + shift), with scale, shift and gate from time and what the body told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.told = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 3 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift, gate = self.told(told).chunk(3, -1)
        out: Tensor = x + gate * self.down(F.silu(self.up((1 + scale) * self.norm(x) + shift)))
        return out


class PatchNet(nn.Module):
    """`body(patches, known, condition)` tells the head of every patch; `head(x, t, told)` is a patch's velocity."""

    waves: Tensor

    def __init__(self, shape: PatchShape) -> None:
        super().__init__()
        self.shape, n = shape, shape.patches
        self.register_buffer("waves", FASTEST * 2 ** (torch.arange(-8, 1) / 2), persistent=False)
        self.label = nn.Embedding(shape.classes + 1, shape.body)
        self.enter = nn.Linear(n * (shape.pixels + 1), shape.body)
        reading = [*(Residual(shape.body) for _ in range(shape.body_blocks)), nn.LayerNorm(shape.body)]
        self.reading = nn.Sequential(*reading)
        self.tell = nn.Linear(shape.body, n * shape.told)
        self.time = nn.Linear(19, shape.head)
        self.hear = nn.Linear(shape.told, shape.head)
        self.begin, self.leave = nn.Linear(shape.pixels, shape.head), nn.Linear(shape.head, shape.pixels)
        self.blocks = nn.ModuleList(HeadBlock(shape.head) for _ in range(shape.head_blocks))
        self.norm = nn.LayerNorm(shape.head)
        nn.init.normal_(self.label.weight, std=0.5)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def body(self, patches: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """(n, patches, told) from patches (n, patches, pixels), those not `known` (n, patches) unseen."""
        seen = torch.cat([patches * known[:, :, None], known[:, :, None].to(patches.dtype)], -1)
        h = self.enter(seen.flatten(1)) + self.label(condition % (self.shape.classes + 1))
        told: Tensor = self.tell(self.reading(h))
        return told.reshape(len(patches), self.shape.patches, self.shape.told)

    def head(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """(n, pixels) velocity of noisy patches x (n, pixels) at times t (n,), of which the body told (n, told)."""
        angles = t[:, None] * self.waves.to(t.dtype)
        heard = F.silu(self.time(torch.cat([t[:, None], angles.sin(), angles.cos()], -1)) + self.hear(told))
        h = self.begin(x)
        for block in self.blocks:
            h = block(h, heard)
        velocity: Tensor = self.leave(self.norm(h))
        return velocity


LEAST = 16  # rows a call at least: a matrix product of fewer may round a row by what else is there


class PatchFlow:
    """A trained `PatchNet` as rows of evaluations. `forward(patches, known, condition)` is the body's pass and
    `forward(x, t, told)` the head's: a row of either is one evaluation."""

    def __init__(self, net: PatchNet, name: str = "patch-digits") -> None:
        self.net, self.shape, self.name = net.eval(), net.shape, name
        self.classes = net.shape.classes
        weights = {n: p.numel() for n, p in net.named_parameters() if p.ndim == 2 and n != "label.weight"}
        body = sum(v for n, v in weights.items() if n.split(".")[0] in ("enter", "reading", "tell"))
        self.body_flops, self.head_flops = 2.0 * body, 2.0 * (sum(weights.values()) - body)

    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        n, args = len(first), (first, *rest)
        if n < LEAST:
            fill = torch.arange(LEAST) % n
            args = tuple(a[fill] for a in args)
        part = self.net.body if first.ndim == 3 else self.net.head
        return part(*args)[:n]

    def told(self, patches: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """(n, patches, told): what the body tells the head of every patch."""
        return self.forward(patches, known, condition)

    def velocity(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """(n, pixels) velocity of patches on the flow's path, given what the body told of each."""
        return self.forward(x, t, told)


def cut(images: Tensor, side: int) -> Tensor:
    """(n, size, size) images as (n, patches, side * side), row by row of patches."""
    n, size = len(images), images.shape[-1]
    tiles = images.reshape(n, size // side, side, size // side, side).transpose(2, 3)
    return tiles.reshape(n, (size // side) ** 2, side * side)


def joined(patches: Tensor, side: int) -> Tensor:
    """The inverse of `cut`."""
    n, across = len(patches), round(patches.shape[1] ** 0.5)
    tiles = patches.reshape(n, across, across, side, side).transpose(2, 3)
    return tiles.reshape(n, across * side, across * side)
