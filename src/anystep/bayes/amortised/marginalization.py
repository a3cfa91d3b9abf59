"""Any marginal probability of a discrete sequence in one pass, any conditional in two, and sampling in any order.

Source: Liu, Ramadge and Adams, "Generative Marginalization Models" (ICML 2024), arXiv 2310.12920.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from anystep import kept
from anystep import keys as lineage
from anystep.bayes.amortised.marginalization_net import UNKNOWN, MarginalNet, MarginalShape, untrained
from anystep.bayes.amortised.marginalization_training import (
    DataRecipe,
    Energy,
    EnergyRecipe,
    Say,
    from_data,
    from_energy,
    residuals,
)
from anystep.errors import UsageError
from anystep.process import Floats

Symbols = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Gap:
    """How far a model is from self-consistency: of m(with) - m(before) - log phi, the root mean square, the mean, and
    the largest size, in nats for one symbol added."""

    rms: float
    mean: float
    largest: float


class MarginalizationModel:
    """log p(x_S) of any subset S of `length` sites in one pass, and log p(x_i | x_S) of all others in another.

    x are (n, length) integers from 0 to symbols - 1, of which only those count where mask, (n, length), is True.
    Preserves nothing exactly: the two networks agree, and each is a law's, as far as training got (`residual`), and
    both are near the trained law only on the kind of x_S that training showed them. Samples follow the law of phi along
    their order, exactly; orders differ as phi is inconsistent. record: what training took, its residual over time.
    """

    def __init__(self, net: MarginalNet, record: dict[str, Any] | None = None) -> None:
        self.net, self.record = net.eval().requires_grad_(False), record or {}
        self.length, self.symbols = net.shape.length, net.shape.symbols
        self.normaliser = float(net.marginal(torch.full((1, self.length), UNKNOWN))[0])

    @classmethod
    def from_data(cls, x: ArrayLike, recipe: DataRecipe, say: Say | None = None) -> MarginalizationModel:
        """Trained on sequences x (rows, length), the first time; kept in the cache folder by recipe and data."""
        data = torch.from_numpy(np.array(x, dtype=np.int64))
        told = [asdict(recipe), list(data.shape), _hash(data)]
        return cls._kept("marginalization-data", told, recipe.shape, lambda: from_data(recipe, data, say))

    @classmethod
    def from_energy(
        cls, energy: Energy, recipe: EnergyRecipe, told: Any = None, say: Say | None = None
    ) -> MarginalizationModel:
        """Trained on an unnormalised log-density (n, length) -> (n,) alone.

        told: what decides the energy, as JSON takes it; with it the model is kept in the cache folder, without it
        trained anew, for a function cannot be told from another.
        """
        if told is None:
            return cls(*from_energy(recipe, energy, say))
        told = [asdict(recipe), told]
        return cls._kept("marginalization-energy", told, recipe.shape, lambda: from_energy(recipe, energy, say))

    @classmethod
    def _kept(cls, name: str, told: Any, shape: MarginalShape, train: Any) -> MarginalizationModel:
        def make(name: str, folder: Path) -> None:
            net, record = train()
            kept.save(net.state_dict(), {"told": told, "record": record}, name, folder, torch.float32)

        card = kept.kept(name, told, make)
        tensors, record = kept.load(card.stem, card.parent)
        net = untrained(shape, 0)
        net.load_state_dict(tensors)
        return cls(net, record["record"])

    @torch.no_grad()
    def log_marginal(self, x: ArrayLike, mask: ArrayLike) -> Floats:
        """(n,) log p(x_S), one pass: m(x_S) less m of nothing known. Of nothing it is 0. Of everything it is a
        log-likelihood that is normalised only as far as training got."""
        return self._host(self.net.marginal(self.tokens(x, mask))) - self.normaliser

    @torch.no_grad()
    def log_conditionals(self, x: ArrayLike, mask: ArrayLike) -> Floats:
        """(n, length, symbols) log p(x_i | x_S), one pass; 0 for the symbol of a site in S and -inf for others."""
        tokens = self.tokens(x, mask)
        said = self._host(self.net.conditional(tokens))
        certain = np.where(tokens.numpy()[..., None] == 1 + np.arange(self.symbols), 0.0, -np.inf)
        return np.where((tokens == UNKNOWN).numpy()[..., None], said, certain)

    def log_prob(self, x: ArrayLike, order: Sequence[int] | None = None) -> Floats:
        """(n,) log p(x): by one pass of m, or, with an order of all sites, by a pass of phi for each: then normalised
        exactly, and the log-probability that `sample` with this order draws x."""
        everything = np.ones_like(np.asarray(x), dtype=bool)
        return self.log_marginal(x, everything) if order is None else self.log_chain(x, everything, order)

    @torch.no_grad()
    def log_chain(
        self, x: ArrayLike, mask: ArrayLike, order: Sequence[int] | None = None, batched: bool = False
    ) -> Floats:
        """(n,) log p(x_S) as an any-order autoregressive model has it: the product of phi over S along the order.

        As many passes as the largest S has sites; or, batched, one of as many rows for each x: the same work, side by
        side. order: of all sites, the first first; by default as they are numbered.
        """
        tokens = self.tokens(x, mask)
        place = torch.from_numpy(np.argsort(self.ordered(order)))
        rank = torch.where(tokens == UNKNOWN, self.length, place).argsort(-1).argsort(-1)  # within S, then the others
        count = (tokens != UNKNOWN).sum(-1)
        total = torch.zeros(len(tokens), dtype=torch.float64)
        rows = torch.arange(len(tokens)).repeat_interleave(count)
        turn = torch.cat([torch.arange(int(c)) for c in count]) if len(tokens) else rows
        passes = 1 if batched else int(count.max()) if len(count) else 0
        parts = [torch.arange(len(rows))] if batched else [(turn == t).nonzero()[:, 0] for t in range(passes)]
        for part in parts:
            row, at = rows[part], turn[part][:, None]
            site = (rank[row] == at).int().argmax(-1)
            said = self.net.conditional(torch.where(rank[row] < at, tokens[row], UNKNOWN))
            total.index_add_(0, row, said[torch.arange(len(row)), site, tokens[row, site] - 1].double())
        return total.numpy()

    @torch.no_grad()
    def sample(
        self,
        n: int,
        given: Sequence[int | None] | None = None,
        order: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Symbols:
        """(n, length) drawn from phi, one site a pass, in `order` or each row in its own random one.

        given: (length,) symbols that stand, None where one is to be drawn: the conditional law given them, whichever
        they are. Row i depends on seed and i alone. Raises UsageError for symbols and orders of another shape.
        """
        known = self.given(given)
        tokens = torch.from_numpy(np.tile(known, (n, 1)))
        keys, rows = lineage.roots(seed, (), np.arange(n)), np.arange(n)
        rank = lineage.uniforms(keys[:, None], 0, np.arange(self.length)) if order is None else None
        places = np.tile(self.ordered(order), (n, 1)) if rank is None else rank.argsort(-1)
        places = places[known[places] == UNKNOWN].reshape(n, -1)
        for turn, site in enumerate(places.T):
            chances = np.exp(self._host(self.net.conditional(tokens)[rows, site]))
            tokens[rows, site] = torch.from_numpy(1 + lineage.choose(chances, lineage.uniforms(keys, 1 + turn)))
        return tokens.numpy() - 1

    @torch.no_grad()
    def residual(self, x: ArrayLike, draws: int = 8, seed: int = 0) -> Gap:
        """How far m and phi disagree on sequences x (n, length), each at `draws` random places of random orders.

        Large on sequences unlike those it was trained on: there a marginal is not to be trusted.
        """
        tokens = self.tokens(x, np.ones_like(np.asarray(x), dtype=bool))
        draw = torch.Generator().manual_seed(seed)
        found = torch.cat([residuals(self.net, tokens, draw) for _ in range(draws)]).double()
        return Gap(float(found.square().mean().sqrt()), float(found.mean()), float(found.abs().max()))

    def tokens(self, x: ArrayLike, mask: ArrayLike) -> Tensor:
        """(n, length) what the networks read: symbol + 1 where the mask is True, 0 elsewhere. Raises UsageError for
        another shape, and for symbols that are not from 0 to symbols - 1."""
        symbols, known = np.asarray(x), np.asarray(mask, dtype=bool)
        right = symbols.ndim == 2 and symbols.shape == known.shape and symbols.shape[1] == self.length
        if not right or not np.isin(symbols[known], np.arange(self.symbols)).all():
            raise UsageError(
                f"x {symbols.shape} with mask {known.shape}: both (n, {self.length}), symbols 0 to {self.symbols - 1} "
                "where the mask is True; log_marginal(x, mask)."
            )
        return torch.from_numpy(np.where(known, symbols, UNKNOWN - 1).astype(np.int64) + 1)

    def given(self, given: Sequence[int | None] | None) -> Symbols:
        """(length,) tokens of symbols that stand, None where one is to be drawn. Raises UsageError as `tokens`."""
        symbols = [None] * self.length if given is None else list(given)
        known = np.array([s is not None for s in symbols])
        return self.tokens([[0 if s is None else s for s in symbols]], known[None]).numpy()[0]

    def ordered(self, order: Sequence[int] | None) -> Symbols:
        """An order of all sites as an array, by default as they are numbered. Raises UsageError for anything else."""
        found = np.arange(self.length) if order is None else np.asarray(order)
        if found.shape != (self.length,) or set(found.tolist()) != set(range(self.length)):
            raise UsageError(
                f"order={order!r}: every site from 0 to {self.length - 1} once; order=range({self.length})."
            )
        return found.astype(np.int64)

    def settings(self) -> str:
        """Which weights these are, as text."""
        return f"{self.net.shape!r}, weights {_hash(*self.net.state_dict().values())}"

    @staticmethod
    def _host(tensor: Tensor) -> Floats:
        return np.asarray(tensor.double().cpu().numpy())


def _hash(*tensors: Tensor) -> str:
    found = blake2b(digest_size=8)
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
