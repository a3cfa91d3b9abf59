"""Variational continual learning: a mean-field Gaussian over a network's weights, a task's posterior the next prior."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.process import Floats


class Layer(nn.Module):
    """A linear layer whose weights and biases are Gaussians, sampled by their outputs, and the prior it started
    from."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(inputs + 1, outputs) / (inputs + 1) ** 0.5)
        self.logs = nn.Parameter(torch.full((inputs + 1, outputs), -3.0))
        self.prior_mean = torch.zeros_like(self.mean)
        self.prior_logs = torch.zeros_like(self.logs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1), value=1.0)
        out = x @ self.mean
        spread = (x**2 @ (2 * self.logs).exp() + 1e-9).sqrt()
        return out + spread * torch.randn_like(out)

    def divergence(self) -> Tensor:
        """KL to the prior, of logarithms of standard deviations."""
        gaps = self.prior_logs - self.logs
        away = ((2 * self.logs).exp() + (self.mean - self.prior_mean) ** 2) * (-2 * self.prior_logs).exp()
        return (gaps + (away - 1) / 2).sum()

    def settle(self) -> None:
        """The posterior becomes the prior."""
        self.prior_mean, self.prior_logs = self.mean.detach().clone(), self.logs.detach().clone()


class Vcl:
    """One head over all classes. memory: examples kept of each task in a coreset, which no task's posterior sees: the
    network that predicts is tuned on all of it, as Nguyen, Li, Bui and Turner (2018) do."""

    def __init__(self, inputs: int, classes: int, hidden: int, epochs: int, memory: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(Layer(inputs, hidden), nn.ReLU(), Layer(hidden, classes))
        self.epochs, self.memory, self.seed = epochs, memory, seed
        self.predicts = self.net
        self.kept_x, self.kept_y = torch.zeros(0, inputs), torch.zeros(0, dtype=torch.long)

    def learn(self, x: Tensor, y: Tensor) -> Vcl:
        draw = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(x), generator=draw)
        core, rest = chosen[: self.memory], chosen[self.memory :]
        self.kept_x, self.kept_y = torch.cat([self.kept_x, x[core]]), torch.cat([self.kept_y, y[core]])
        fit(self.net, x[rest], y[rest], self.epochs, self.seed)
        for layer in layers(self.net):
            layer.settle()
        self.predicts = copy.deepcopy(self.net)
        if self.memory:
            fit(self.predicts, self.kept_x, self.kept_y, self.epochs, self.seed)
        return self

    @torch.no_grad()
    def predict_proba(self, x: Tensor, samples: int = 10) -> Floats:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            found = torch.stack([self.predicts(x).softmax(-1) for _ in range(samples)]).mean(0)
        return found.double().numpy()


def layers(net: nn.Module) -> list[Layer]:
    return [part for part in net.modules() if isinstance(part, Layer)]


def fit(net: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
    """Adam on the negative evidence bound a point."""
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            for at in torch.split(torch.randperm(len(x), generator=draw), 64):
                away = sum((layer.divergence() for layer in layers(net)), torch.zeros(()))
                loss = F.cross_entropy(net(x[at]), y[at]) + away / len(x)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
