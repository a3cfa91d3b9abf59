"""The network of a distribution transformer: tokens of a prior's components look at each other and at the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.bayes.amortised.mixtures import GaussianMixture

LIGHTEST = -12.0  # log weights below this are taken for this: 6 in a million


def numbers(mixture: GaussianMixture) -> Tensor:
    """(*batch, k, p) what a component is: log weight, mean, log deviations given those before, relative slopes."""
    deviations = mixture.scales.diagonal(dim1=-2, dim2=-1)
    i, j = torch.tril_indices(mixture.size, mixture.size, -1)
    slopes = (mixture.scales / deviations[..., :, None])[..., i, j]
    return torch.cat([mixture.logs.clamp_min(LIGHTEST)[..., None], mixture.means, deviations.log(), slopes], -1)


def mixture_of(said: Tensor, size: int) -> GaussianMixture:
    """The mixture whose `numbers` these are, whatever they are: weights are made to sum to one."""
    logits, means, log_deviations, slopes = said.split([1, size, size, size * (size - 1) // 2], -1)
    i, j = torch.tril_indices(size, size, -1)
    lower = torch.eye(size, dtype=said.dtype).expand(*said.shape[:-1], size, size).clone()
    lower[..., i, j] = slopes
    return GaussianMixture(logits[..., 0].log_softmax(-1), means, log_deviations.clamp(-8, 8).exp()[..., None] * lower)


class Attention(nn.Module):
    """Queries (n, k, width) look at `there` (n, m, width); `seen` (n, m) says at which."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.give, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, there: Tensor, seen: Tensor | None = None) -> Tensor:
        ask, key, value = (
            v.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for v in (self.ask(queries), *self.give(there).chunk(2, -1))
        )
        mask = None if seen is None else seen[:, None, None, :]
        found = F.scaled_dot_product_attention(ask, key, value, attn_mask=mask)
        added: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return added


class Layer(nn.Module):
    """Components look at each other, then at the data, then each thinks; it starts as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.among, self.across = Attention(width, heads), Attention(width, heads)
        self.think = perceptron(width, 2 * width, width)

    def forward(self, tokens: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        own = self.norms[0](tokens)
        tokens = tokens + self.among(own, own)
        tokens = tokens + self.across(self.norms[1](tokens), context, seen)
        thought: Tensor = tokens + self.think(self.norms[2](tokens))
        return thought


def perceptron(size: int, hidden: int, out: int) -> nn.Sequential:
    """Two layers, of which the last is zero at first."""
    net = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, out))
    nn.init.zeros_(net[2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(net[2].bias)  # type: ignore[arg-type]
    return net


class DistributionNet(nn.Module):
    """size: dimensions of the unknown. sources: numbers in a datum of each kind.

    At first un-embedding undoes embedding and every layer is the identity: the posterior that it says is the prior.
    """

    least: Tensor
    most: Tensor

    def __init__(self, size: int, sources: tuple[int, ...], width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.size = size
        p = 1 + size + size * (size + 1) // 2
        for end in ("least", "most"):  # of the numbers of priors in training, log weights left out
            self.register_buffer(end, torch.zeros(p - 1))
        basis = torch.linalg.qr(torch.randn(width, p + 1))[0]
        self.enter, self.leave, self.more = nn.Linear(p, width), nn.Linear(width, p), perceptron(p, 2 * width, width)
        with torch.no_grad():
            self.enter.weight.copy_(basis[:, :p])
            self.enter.bias.copy_(2 * basis[:, p])  # a yardstick beside the numbers, which a norm would else take away
            self.leave.weight.copy_(basis[:, :p].mT)
            self.leave.bias.zero_()
        self.data = nn.ModuleList(
            nn.Sequential(nn.Linear(m + 1, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for m in sources
        )
        self.none = nn.Sequential(nn.Linear(len(sources), width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def embed(self, prior: GaussianMixture) -> Tensor:
        """(n, k, width) tokens of n priors."""
        said = numbers(prior)
        tokens: Tensor = self.enter(said) + self.more(said)
        return tokens

    def unembed(self, tokens: Tensor) -> GaussianMixture:
        """The mixtures that tokens stand for, before data and after."""
        return mixture_of(self.leave(tokens), self.size)

    def forward(self, tokens: Tensor, data: tuple[Tensor, ...]) -> Tensor:
        """(n, k, width) tokens of the posteriors, from those of the priors and data (n, rows, m) of each source."""
        there = [~values.isnan().any(-1) for values in data]
        logs = [seen.sum(-1, dtype=tokens.dtype).log1p() for seen in there]
        context = [self.none(torch.stack(logs, -1))[:, None]]
        for embed, values, log in zip(self.data, data, logs, strict=True):
            many = log[:, None, None].expand(*values.shape[:-1], 1)
            context.append(embed(torch.cat([values.nan_to_num(), many], -1)))
        seen = torch.cat([logs[0][:, None] >= 0, *there], 1)  # what says how many data there are is always seen
        said = torch.cat(context, 1)
        for layer in self.layers:
            tokens = layer(tokens, said, seen)
        return tokens
