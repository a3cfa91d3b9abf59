"""Training by marginalisation self-consistency: from data in two stages, or from an energy and no data.

The loss says that adding one symbol multiplies by its conditional: m(x_S with i) = m(x_S) + log phi(x_i | x_S), for
random orders and places, and that m of nothing known is the log-normaliser. What either training preserves: nothing
exactly. At zero loss everywhere phi's conditionals are of one law and m are its marginals; how far a model is from
that, on what was trained on or elsewhere, its `residual` measures.

Source: Liu, Ramadge and Adams, "Generative Marginalization Models" (ICML 2024), arXiv 2310.12920.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.averaged import averaged
from anystep.bayes.amortised.marginalization_net import UNKNOWN, MarginalNet, MarginalShape, untrained
from anystep.errors import UsageError

POINTS = 10  # how often a training looks at its residual
Energy = Callable[[Tensor], Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """One training loop: updates, rows of a batch, AdamW's rate and weight decay, the running average of weights."""

    updates: int = 3_000
    batch: int = 256
    rate: float = 2e-3
    average: float = 0.998
    decay: float = 0.01


@dataclass(frozen=True)
class DataRecipe:
    """Everything but the data that decides a model trained from data.

    arm: maximum likelihood of phi, an any-order autoregressive model. marginal: fitting m to the fixed phi. drawn: how
    many sequences phi draws for the second stage, which takes half of each batch from them; 0 for data alone.
    """

    shape: MarginalShape
    arm: Stage = field(default_factory=Stage)
    marginal: Stage = field(default_factory=Stage)
    drawn: int = 0
    seed: int = 0


@dataclass(frozen=True)
class EnergyRecipe:
    """Everything but the energy that decides a model trained from an energy, with the reverse Kullback-Leibler loss.

    alpha: weight of the self-consistency loss. block: sites that a Gibbs move erases and draws again, each one pass.
    persistent: whether chains go on from update to update; False starts each from uniform symbols, the ablation.
    """

    shape: MarginalShape
    stage: Stage = field(default_factory=Stage)
    alpha: float = 4.0
    block: int = 4
    persistent: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and 1 <= self.block <= self.shape.length):
            raise UsageError(f"EnergyRecipe(alpha={self.alpha}, block={self.block}): above 0; 1 to length sites.")


def from_data(recipe: DataRecipe, symbols: Tensor, say: Say | None = None) -> tuple[MarginalNet, dict[str, Any]]:
    """Networks trained on sequences (rows, length) of symbols from 0, and what that took.

    First phi alone: the cross-entropy of each unknown site given a random known set, an unbiased estimate of the mean
    over orders of -log p. Then m alone, by the self-consistency loss with phi as it is; m of nothing is held to 0.
    Raises UsageError for symbols that do not fit the shape.
    """
    shape, draw = recipe.shape, torch.Generator().manual_seed(recipe.seed + 1)
    if (
        symbols.ndim != 2
        or symbols.shape[1] != shape.length
        or not 0 <= int(symbols.min()) <= int(symbols.max()) < (shape.symbols)
    ):
        raise UsageError(f"from_data: symbols {tuple(symbols.shape)} do not fit {shape!r}; (rows, length) from 0.")
    net, tokens = untrained(shape, recipe.seed), symbols.long() + 1

    def likelihood() -> Tensor:
        target = _rows(tokens, recipe.arm.batch, draw)
        rank, count = orders(target.shape, draw), torch.randint(shape.length, (len(target), 1), generator=draw)
        said = net.conditional(torch.where(rank < count, target, UNKNOWN)).transpose(1, 2)
        lost = F.nll_loss(said, target - 1, reduction="none") * (rank >= count)
        return (lost.sum(-1) * shape.length / (shape.length - count[:, 0])).mean()

    cost = averaged(net.phi, recipe.arm, likelihood, recipe.arm.decay, say)
    net.phi.requires_grad_(False)
    drawn = sampled(net, recipe.drawn, draw) if recipe.drawn else tokens
    watch = Watch(net, recipe.marginal.updates, _rows(drawn, 1_000, draw), draw)

    def consistency() -> Tensor:
        half = recipe.marginal.batch // 2
        rows = torch.cat([_rows(tokens, recipe.marginal.batch - half, draw), _rows(drawn, half, draw)])
        watch()
        return shape.length * residuals(net, rows, draw).square().mean() + nothing(net).square()

    second = averaged(net.m, recipe.marginal, consistency, recipe.marginal.decay, say)
    return net, {"cpu_seconds": [cost.cpu_seconds, second.cpu_seconds], "residual": [*watch.seen, watch.look()]}


def from_energy(recipe: EnergyRecipe, energy: Energy, say: Say | None = None) -> tuple[MarginalNet, dict[str, Any]]:
    """Networks trained on an unnormalised log-density of sequences alone, and what that took.

    energy: (n, length) symbols from 0 to (n,) log f, up to a constant. Minimises E[m(x) - log f(x)] under the model
    itself by REINFORCE, plus alpha times the self-consistency loss, which is also all that phi learns from; x come from
    chains that a block of sites is erased from and drawn again by phi: a few passes an update, where a fresh sample
    takes as many as there are sites. m of nothing is held to length log symbols. The learning signal is divided by its
    deviation where that is above 1; the paper divides always, which magnifies the noise once little is left to learn.
    Raises UsageError for an energy that does not answer with a finite number a row.
    """
    shape, draw = recipe.shape, torch.Generator().manual_seed(recipe.seed + 1)
    net, size = untrained(shape, recipe.seed), (recipe.stage.batch, shape.length)
    level = shape.length * torch.tensor(float(shape.symbols)).log()

    def fresh() -> Tensor:
        return torch.randint(1, shape.symbols + 1, size, generator=draw)

    chain = fresh()
    watch = Watch(net, recipe.stage.updates, None, draw)

    def loss() -> Tensor:
        nonlocal chain
        chain = gibbs(net, chain if recipe.persistent else fresh(), recipe.block, draw)
        watch(chain)
        m = net.marginal(chain)
        signal = m.detach() - asked(energy, chain).to(m.dtype)
        reward = (signal - signal.mean()) / signal.std().clamp_min(1.0)
        apart = shape.length * residuals(net, chain, draw).square().mean() + (nothing(net) - level).square()
        return (reward * m).mean() + recipe.alpha * apart

    cost = averaged(net, recipe.stage, loss, recipe.stage.decay, say)
    return net, {"cpu_seconds": [cost.cpu_seconds], "residual": [*watch.seen, watch.look(chain)]}


def residuals(net: MarginalNet, tokens: Tensor, draw: torch.Generator) -> Tensor:
    """(n,) m(with) - m(before) - log phi(the symbol | before), at a random place of a random order of each row."""
    rows = torch.arange(len(tokens))
    rank, place = orders(tokens.shape, draw), torch.randint(tokens.shape[1], (len(tokens), 1), generator=draw)
    site = (rank == place).int().argmax(-1)
    before, after = (torch.where(rank < end, tokens, UNKNOWN) for end in (place, place + 1))
    step = net.conditional(before)[rows, site, tokens[rows, site] - 1]
    m = net.marginal(torch.cat([after, before]))
    return m[: len(rows)] - m[len(rows) :] - step


@torch.no_grad()
def gibbs(net: MarginalNet, tokens: Tensor, block: int, draw: torch.Generator) -> Tensor:
    """Each row with `block` random sites erased, then drawn again one by one from phi. With consistent conditionals it
    leaves their law invariant; with `block` the length it is a fresh sample."""
    rows, order = torch.arange(len(tokens)), torch.rand(tokens.shape, generator=draw).argsort(-1)
    tokens = tokens.scatter(1, order[:, :block], UNKNOWN)
    for turn in range(block):
        site = order[:, turn]
        chances = net.conditional(tokens)[rows, site].exp()
        tokens[rows, site] = 1 + torch.multinomial(chances, 1, generator=draw)[:, 0]
    return tokens


def sampled(net: MarginalNet, n: int, draw: torch.Generator) -> Tensor:
    """n fresh rows of tokens, each in its own random order."""
    return gibbs(net, torch.zeros(n, net.shape.length, dtype=torch.long), net.shape.length, draw)


def asked(energy: Energy, tokens: Tensor) -> Tensor:
    """The energy of rows of tokens; UsageError where it is not a finite number a row."""
    found = energy(tokens - 1)
    if found.shape != tokens.shape[:1] or not bool(found.isfinite().all()):
        raise UsageError(
            f"energy(x) of x {tuple(tokens.shape)} gave {tuple(found.shape)}, or not finite; one log-density a row, as "
            "in energy=lambda x: (2.0 * x - 1) @ fields."
        )
    return found


def nothing(net: MarginalNet) -> Tensor:
    """m of nothing known."""
    return net.marginal(torch.zeros(1, net.shape.length, dtype=torch.long))[0]


def orders(shape: torch.Size, draw: torch.Generator) -> Tensor:
    """(n, length) each site's place in a random order of its row."""
    return torch.rand(shape, generator=draw).argsort(-1).argsort(-1)


def _rows(tokens: Tensor, n: int, draw: torch.Generator) -> Tensor:
    return tokens[torch.randint(len(tokens), (n,), generator=draw)]


class Watch:
    """Root mean squared residual on given rows, `POINTS` times in a training, its own draws the same each time."""

    def __init__(self, net: MarginalNet, updates: int, rows: Tensor | None, draw: torch.Generator) -> None:
        self.net, self.rows, self.seed = net, rows, int(torch.randint(2**31, (1,), generator=draw))
        self.every, self.turn, self.seen = max(1, updates // POINTS), 0, list[float]()

    def __call__(self, rows: Tensor | None = None) -> None:
        if self.turn % self.every == 0:
            self.seen.append(self.look(rows))
        self.turn += 1

    @torch.no_grad()
    def look(self, rows: Tensor | None = None) -> float:
        some = self.rows if rows is None else rows
        assert some is not None
        draw = torch.Generator().manual_seed(self.seed)
        return float(residuals(self.net, some, draw).square().mean().sqrt())
