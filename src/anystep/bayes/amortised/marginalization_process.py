"""Any-order sampling as a process: a step reveals one site or several, and search procedures run on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.bayes.amortised.marginalization import MarginalizationModel
from anystep.bayes.amortised.marginalization_net import UNKNOWN
from anystep.bayes.amortised.marginalization_training import Energy
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost
from anystep.process import Floats, Status
from anystep.stepwise import Arrays, Moved, Stepwise


@dataclass(frozen=True, eq=False)
class Revealed(Arrays):
    """tokens: (n, length), 0 where nothing is known yet. clock: (n,) sites revealed since the start.
    m: (n,) log of what the tokens weigh, 0 at the start and where there is no energy."""

    tokens: NDArray[np.int64]
    clock: NDArray[np.int64]
    m: Floats


SYMBOL, SITE = 0, 1  # what a step's draws are for


class AnyOrderProcess(Stepwise):
    """A model's sequences, revealed site by site, each given all before it: one pass of phi a site.

    Preserves the law of phi along the order, exactly. Log-probabilities are masses, of the symbol and, where the order
    is random, of the choice of its site. With an energy the target is exp(energy) instead, in the limit of particles: a
    site's weight is m(with) / (m(before) phi(site)), which is 1 where the model is consistent, and the last site's has
    the energy in place of m(with). So `particle_filter` on it corrects the model, with an unbiased estimate of the
    normaliser as its evidence; that costs a pass of m for every site but the last beside.

    order: of all sites; by default random, each state's own. per_step: sites of one step. given: symbols that stand,
    None where one is to be drawn; with an energy the evidence is then the sum of exp(energy) over x with these symbols.
    energy: (n, length) symbols to (n,) log-density. Raises UsageError for orders and symbols of another shape, and
    where nothing is left to reveal.
    """

    states = Revealed
    logp = "mass"

    def __init__(
        self,
        model: MarginalizationModel,
        order: Sequence[int] | None = None,
        per_step: int = 1,
        given: Sequence[int | None] | None = None,
        energy: Energy | None = None,
        name: str = "any-order",
    ) -> None:
        self.given = model.given(given)
        self.sites = int((self.given == UNKNOWN).sum())
        if self.sites == 0 or not isinstance(per_step, int) or per_step < 1:
            raise UsageError(
                f"AnyOrderProcess(per_step={per_step!r}) with {self.sites} sites to reveal: 1 or more of both; "
                "leave a site of `given` None."
            )
        left = model.ordered(order)
        self.order = None if order is None else left[self.given[left] == UNKNOWN]
        self.model, self.per_step, self.energy, self.name = model, per_step, energy, name
        self.horizon = -(-self.sites // per_step)

    def settings(self) -> str:
        order = "random" if self.order is None else self.order.tolist()
        energy = getattr(self.energy, "__name__", None if self.energy is None else type(self.energy).__name__)
        return f"{self.model.settings()}, {order=}, per_step={self.per_step}, given={self.given.tolist()}, {energy=}"

    def begin(self, keys: Keys) -> Revealed:
        n = len(keys)
        return Revealed(np.tile(self.given, (n, 1)), np.zeros(n, dtype=np.int64), np.zeros(n))

    def price(self, states: Revealed) -> list[Cost]:
        phi, m = self.model.net.phi.flops(), self.model.net.m.flops()
        return [Cost(evaluations=1 + w, flops=phi + w * m) for w in self._weighed(states).tolist()]

    def once(self, states: Revealed) -> Cost:
        return Cost(calls=1 + int(self._weighed(states).any()))

    def boundary(self, states: Revealed) -> NDArray[np.bool_]:
        return np.asarray(states.clock % self.per_step == 0)

    def _weighed(self, states: Revealed) -> NDArray[np.int64]:
        """(n,) 1 where the coming site is weighed by a pass of m."""
        return ((states.clock + 1 < self.sites) & (self.energy is not None)).astype(np.int64)

    def advance(self, states: Revealed, keys: Keys) -> Moved:
        rows, clock, tokens = np.arange(len(states)), states.clock, states.tokens.copy()
        site, chosen = self._site(states, keys)
        logs = self.forward(tokens, self.model.net.conditional)[rows, site]
        lost = np.asarray(np.isnan(logs).any(-1))
        symbol = lineage.choose(np.where(lost[:, None], 1.0, np.exp(logs)), lineage.uniforms(keys, clock, SYMBOL))
        tokens[rows, site] = symbol + 1
        said = np.where(lost, 0.0, logs[rows, symbol])
        m = self._masses(states, tokens)
        lost |= np.isnan(m)
        logw = np.where(lost, 0.0, m - states.m - said) if self.energy else np.zeros(len(rows))
        status = np.where(clock + 1 == self.sites, Status.DONE, Status.LIVE).astype(np.int8)
        status[lost] = Status.FAILED
        errors = {int(row): f"{self.name}: the model or the energy says NaN." for row in np.flatnonzero(lost)}
        return Moved(Revealed(tokens, clock + 1, m), status, said + chosen, logw, errors)

    def _masses(self, states: Revealed, tokens: NDArray[np.int64]) -> Floats:
        """(n,) log of what the states' tokens now weigh: m of them, and the energy where they are whole."""
        m, weighed = np.zeros(len(tokens)), self._weighed(states).astype(np.bool_)
        if self.energy is None:
            return m
        if weighed.any():
            m[weighed] = self.forward(tokens[weighed], self.model.net.marginal)
        if not weighed.all():
            m[~weighed] = self.energy(torch.from_numpy(tokens[~weighed] - 1)).double().numpy()
        return m

    def _site(self, states: Revealed, keys: Keys) -> tuple[NDArray[np.int64], Floats]:
        """The site that each row reveals next, and the log-probability of having chosen it."""
        if self.order is not None:
            return self.order[states.clock], np.zeros(len(states))
        hidden = states.tokens == UNKNOWN
        left = hidden.sum(-1)
        place = (lineage.uniforms(keys, states.clock, SITE) * left).astype(np.int64)
        return (hidden.cumsum(-1) <= place[:, None]).sum(-1), -np.log(left)

    @torch.no_grad()
    def forward(self, tokens: NDArray[np.int64], network: Callable[[Tensor], Tensor]) -> Floats:
        """What a network says of rows of tokens."""
        return np.asarray(network(torch.from_numpy(tokens)).double().numpy())

    def answers(self, states: Revealed) -> tuple[Hashable, ...]:
        whole = (states.tokens != UNKNOWN).all(-1)
        return tuple(tuple(row) if w else None for row, w in zip((states.tokens - 1).tolist(), whole, strict=True))

    def texts(self, states: Revealed) -> tuple[str, ...]:
        return tuple(" ".join("_" if t == UNKNOWN else str(t - 1) for t in row) for row in states.tokens.tolist())
