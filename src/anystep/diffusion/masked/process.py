"""Unmasking as a process: every search procedure runs on it as it runs on text and on denoising.

Its states carry what the model predicts behind the mask, so a reward on that prediction costs nothing more, and a whole
sample costs one evaluation a pass.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL
from anystep.diffusion.masked.orders import Order, Random, Sites, first
from anystep.diffusion.masked.pace import Linear, Pace
from anystep.diffusion.masked.predictor import Predictor
from anystep.diffusion.masked.states import Masked
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost, Limit
from anystep.process import Floats, Status, Stepped
from anystep.stepwise import Moved, Stepwise

TOKENS, ORDER, GUESS = 0, 1, 2  # what a site's draws of one pass are for


class MaskedProcess(Stepwise):
    """A masked model: from everything hidden to a whole sequence in `steps` passes.

    A start is one prediction of the hidden sequence; each pass draws symbols for some hidden sites, independently given
    what is revealed, and predicts again, but for the last. Preserves the model's law when steps is the number of hidden
    sites, the order does not read what was drawn and temperature is 1 (and every set of conditionals is that of one
    law, as an exact model's is); with fewer steps sites of one pass are independent, whatever the model knows.
    Log-probabilities are masses, of the symbols drawn and of the sites chosen for them; with an order that reads what
    was drawn they are not known, and 0.

    predictor: the model. steps: passes, at most as many as there are hidden sites. order, pace: which sites, and how
    many, a pass reveals. temperature: of the symbols' draws; 0 takes the likeliest. condition: the class of every
    state, None for none. known: (length,) symbols that stand from the start, the mask's number (or None) where it is to
    be filled in. completes: how `clean` fills hidden sites, with the likeliest symbol or one drawn from the prediction.
    Raises UsageError for a class or symbols that the model does not know, and where nothing is hidden.
    """

    states = Masked

    def __init__(
        self,
        predictor: Predictor,
        steps: int = 8,
        order: Order | None = None,
        pace: Pace | None = None,
        temperature: float = 1.0,
        condition: int | None = None,
        known: Sequence[int | None] | None = None,
        completes: Literal["argmax", "sample"] = "argmax",
        name: str | None = None,
    ) -> None:
        _refuse(predictor, steps, temperature, condition, completes)
        self.model, self.order, self.pace = predictor, order or Random(), pace or Linear()
        self.temperature, self.completes = float(temperature), completes
        self.condition = NULL if condition is None else condition
        self.given = _given(predictor, known)
        sites = int((self.given == predictor.mask).sum())
        self.passes = self.horizon = min(steps, sites)
        self.hidden = self.pace.hidden(sites, self.passes)
        self.name, self.branches = name or predictor.name, self.temperature > 0 or self.order.random
        self.logp = "unknown" if self.order.reads else "mass"
        hidden = (self.given == predictor.mask)[None]
        self.order.rank(Sites(hidden, np.zeros(hidden.shape), np.zeros(1), lambda: np.zeros(hidden.shape)))  # refuses

    def settings(self) -> str:
        known = "" if (self.given == self.model.mask).all() else f", known={self.given.tolist()}"
        return (
            f"{self.model.settings()}, steps={self.passes}, {self.order!r}, {self.pace!r}, temperature="
            f"{self.temperature}, condition={self.condition}, completes={self.completes}{known}"
        )

    def merges(self) -> Hashable:
        settings = (self.passes, self.order, self.pace, self.temperature, self.completes, self.given.tobytes())
        return (MaskedProcess, id(self.model), *settings)

    def begin(self, keys: Keys) -> Masked:
        return self.masked(keys, np.full(len(keys), self.condition, dtype=np.int64))

    def masked(self, keys: Keys, condition: NDArray[np.int64]) -> Masked:
        """What is known and nothing more, one row a key, with nothing predicted yet."""
        n, device = len(keys), self.model.device
        tokens = torch.from_numpy(np.tile(self.given, (n, 1))).to(device)
        logs = torch.zeros(n, self.model.length, self.model.symbols, dtype=self.model.dtype, device=device)
        return Masked(tokens, tokens, logs, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool), condition)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        states, n = self.begin(keys), len(keys)
        paid = limit.pay(np.arange(n), self._cost(1), Cost(calls=self.model.calls(n)))
        rows = np.flatnonzero(paid)
        states = states.put(rows, self.predicted(states.take(rows), keys[rows]))
        return Stepped(states, np.zeros(n, dtype=np.int8), np.zeros(n), np.zeros(n), limit.used, ~paid)

    def price(self, states: Masked) -> Cost | list[Cost]:
        first, last = self._asked(states)
        rows = (first.astype(np.int64) + last).tolist()
        return self._cost(rows[0]) if len(set(rows)) == 1 else [self._cost(n) for n in rows]

    def once(self, states: Masked) -> Cost:
        return Cost(calls=sum(self.model.calls(int(asked.sum())) for asked in self._asked(states)))

    def free(self, states: Masked) -> NDArray[np.bool_]:
        first, last = self._asked(states)
        return np.asarray(~first & ~last)

    def _asked(self, states: Masked) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows the coming pass asks the model about, before it and after it."""
        return ~states.known, np.asarray(states.index + 1 < self.passes)

    def _cost(self, rows: int) -> Cost:
        rows *= self.model.evaluations()
        return Cost(evaluations=rows, flops=rows * self.model.flops())

    @torch.no_grad()
    def predicted(self, states: Masked, keys: Keys) -> Masked:
        """With the model's prediction where it is missing; with nothing hidden, there is nothing to predict."""
        rows = np.flatnonzero(~states.known)
        if len(rows) == 0:
            return states
        missing = states.take(rows)
        clean, logs = missing.tokens.clone(), torch.zeros_like(missing.logs)
        live = np.flatnonzero(missing.index < self.passes)
        if len(live):
            condition = torch.from_numpy(missing.condition[live]).to(self.model.device)
            logs[live] = self.model(missing.tokens[live], condition).to(logs.dtype)
            at, site = np.nonzero(_host(clean == self.model.mask))
            if self.completes == "argmax":
                clean[at, site] = logs[at, site].argmax(-1)
            else:
                u = self._uniform(keys[rows], missing.index, GUESS)(at, site)
                clean[at, site] = draw(logs[at, site], u, self.temperature)[0]
        return states.put(rows, replace(missing, clean=clean, logs=logs, known=np.ones(len(rows), dtype=bool)))

    def advance(self, states: Masked, keys: Keys) -> Moved:
        states = self.predicted(states, keys)
        hidden, index = _host(states.tokens == self.model.mask), states.index + 1
        count = self.hidden[states.index] - self.hidden[index]
        tokens, logp = self._revealed(states, keys, hidden, count)
        ended = index == self.passes
        unknown = np.zeros(len(states), dtype=bool)
        moved = Masked(tokens, tokens, states.logs, index, unknown, states.condition)
        status = np.where(ended, Status.DONE, Status.LIVE).astype(np.int8)
        lost = np.flatnonzero(_host(states.logs.isnan().flatten(1).any(1)))  # would be drawn as symbol 0
        status[lost] = Status.FAILED
        errors = {int(row): f"{self.name}: the model's predictions are no numbers (NaN)." for row in lost}
        return Moved(self.predicted(moved, keys), status, logp, np.zeros(len(states)), errors)

    def _revealed(
        self, states: Masked, keys: Keys, hidden: NDArray[np.bool_], count: NDArray[np.int64]
    ) -> tuple[Tensor, Floats]:
        """The tokens after one pass, and the log-probability of its choices."""
        index, left = states.index + 1, 1.0 - (states.index + 1) / self.passes
        everywhere, logs = np.nonzero(np.ones_like(hidden)), np.zeros(hidden.shape)
        tokens, drawn = states.tokens.clone(), states.tokens.clone()

        def sample(at: NDArray[np.int64], site: NDArray[np.int64]) -> None:
            u = self._uniform(keys, index, TOKENS)(at, site)
            drawn[at, site], logs[at, site] = draw(states.logs[at, site], u, self.temperature)

        def uniform() -> Floats:
            return self._uniform(keys, index, ORDER)(*everywhere).reshape(hidden.shape)

        if self.order.reads:
            sample(*np.nonzero(hidden))
        chosen = first(self.order.rank(Sites(hidden, logs, left, uniform)), hidden, count)
        at, site = np.nonzero(chosen)
        if not self.order.reads:
            sample(at, site)
        tokens[at, site] = drawn[at, site]
        if self.order.reads:
            return tokens, np.zeros(len(tokens))
        return tokens, np.where(chosen, logs, 0.0).sum(-1) + self.order.logp(hidden.sum(-1), count)

    def _uniform(self, keys: Keys, index: NDArray[np.int64], use: int) -> Any:
        """Draws in [0, 1) for (rows, sites): each a function of its row's key and clock, its site and its use."""
        return lambda at, site: lineage.uniforms(keys[at], index[at], use * self.model.length + site)

    def answers(self, states: Masked) -> tuple[Hashable, ...]:
        done = states.index == self.passes
        return tuple(a if d else None for a, d in zip(self.model.answers(states.tokens), done, strict=True))

    def texts(self, states: Masked) -> tuple[str, ...]:
        return self.model.texts(states.clean)

    def load(self, data: bytes) -> Any:
        return Masked.read(data, self.model.device)


def draw(logs: Tensor, u: Floats, temperature: float) -> tuple[Tensor, Floats]:
    """Symbols from log-probabilities (m, symbols) at u (m,) in [0, 1), and their log-probabilities (m,) under the
    tempered law; the likeliest at temperature 0."""
    if temperature == 0:
        return logs.argmax(-1), np.zeros(len(logs))
    logs = logs.to(torch.float64) / temperature
    logs = logs - logs.amax(-1, keepdim=True)
    edges = logs.exp().cumsum(-1)  # one after the other: no sum whose order could depend on the batch
    total = edges[:, -1:]
    target = torch.from_numpy(u).to(logs.device)[:, None] * total
    symbol = (edges <= target).sum(-1).clamp_max(logs.shape[-1] - 1)
    return symbol, _host(logs.gather(-1, symbol[:, None])[:, 0] - total[:, 0].log())


def _host(values: Tensor) -> NDArray[Any]:
    return np.asarray(values.cpu().numpy())


def _refuse(model: Predictor, steps: int, temperature: float, condition: int | None, completes: str) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise UsageError(f"MaskedProcess(steps={steps!r}): steps is 1 or more; MaskedProcess(predictor, steps=8).")
    if not 0 <= temperature < np.inf:
        raise UsageError(f"temperature={temperature!r}: 0 or more; 1.0 draws from the model, 0.0 takes the likeliest.")
    if condition is not None and not (isinstance(condition, int | np.integer) and 0 <= condition < model.classes):
        known = f"0 to {model.classes - 1}" if model.classes else "none: leave condition out"
        raise UsageError(f"condition={condition!r}: {model.name} knows the classes {known}.")
    if completes not in ("argmax", "sample"):
        raise UsageError(f"completes={completes!r}: 'argmax' or 'sample'.")


def _given(model: Predictor, known: Sequence[int | None] | None) -> NDArray[np.int64]:
    """(length,) what stands from the start, the mask elsewhere."""
    if known is None:
        return np.full(model.length, model.mask, dtype=np.int64)
    given = np.array([model.mask if k is None else k for k in known], dtype=np.int64)
    if given.shape != (model.length,) or not ((given >= 0) & (given <= model.mask)).all():
        raise UsageError(
            f"known: {model.length} symbols from 0 to {model.symbols - 1}, None where it is to be filled in."
        )
    if (given != model.mask).all():
        raise UsageError("known: every site is known already; put None where it is to be filled in.")
    return given
