"""How sure the model was of the tokens it wrote: read off its own predictions, at no further token.

Source: Fu et al., "Deep Think with Confidence" (2025), arXiv 2508.15260: a token's confidence is minus the mean
log-probability of the `top` likeliest tokens there, so the more one of them takes, the higher it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.prefill import paid, portions
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Floats, Reward, Scored

Reading = Literal["lowest", "bottom", "tail", "mean"]


def groups(tokens: Floats, window: int) -> Floats:
    """Means of every `window` tokens in a row; of all, where there are no more than that."""
    if len(tokens) <= window:
        return np.array([tokens.mean()])
    sums = np.concatenate([[0.0], np.cumsum(tokens)])
    return np.asarray((sums[window:] - sums[:-window]) / window)


def _bottom(tokens: Floats, window: int) -> float:
    means = np.sort(groups(tokens, window))
    return float(means[: max(1, math.ceil(len(means) / 10))].mean())


READINGS: dict[str, Callable[[Floats, int], float]] = {
    "lowest": lambda tokens, window: float(groups(tokens, window).min()),
    "bottom": _bottom,
    "tail": lambda tokens, window: float(tokens[-window:].mean()),
    "mean": lambda tokens, window: float(tokens.mean()),
}


@dataclass(frozen=True)
class TokenConfidence(Reward):
    """A chain's confidence, 0 or more, by its tokens'; see `token_confidence`. A chain that has not begun has none."""

    name: str
    read_as: Reading = "lowest"
    window: int = 16
    top: int = 20
    range: tuple[float, float] = (0.0, np.inf)
    engine: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), np.nan)
        for row, tokens in self.tokens(states, limit).items():
            values[row] = READINGS[self.read_as](tokens, self.window)
        return Scored(values, limit.used)

    def tokens(self, states: Any, limit: Limit) -> dict[int, Floats]:
        """Each written token's confidence, of every row that has one and could be paid for."""
        if getattr(getattr(states, "tokenizer", None), "size", None) != self.engine.tokenizer.size:
            raise UsageError(
                f"{self.name} reads what its own model wrote, and these states are none of it: give "
                "verify.token_confidence(engine) the engine that writes them."
            )
        with self.engine.lock:
            return self._read(states, limit)

    def _read(self, states: Any, limit: Limit) -> dict[int, Floats]:
        written = [(start, tokens) for start, tokens in zip(states.starts, states.tokens, strict=True)]
        rows = np.flatnonzero([len(tokens) > start for start, tokens in written])
        fed = [written[row][1][:-1] for row in rows.tolist()]  # the last token has not been read by its writer either
        found: dict[int, Floats] = {}
        for some in portions(self.engine, fed):
            part = rows[some]
            prices = [self._price(len(written[row][1]) - written[row][0]) for row in part.tolist()]
            left, plan = paid(self.engine, [fed[i] for i in some.tolist()], limit, prices, rows=part)
            if plan is None:
                continue
            with self.engine.open(plan) as session:
                for i, row in enumerate(part[left].tolist()):
                    start, tokens = written[row]
                    states_of = session.states(i)[start - 1 : len(tokens) - 1, : self.engine.config.dim]
                    logs = self.engine.model.logits(states_of).float().log_softmax(-1)
                    best = logs.topk(min(self.top, logs.shape[-1]), -1).values
                    found[row] = -best.double().mean(-1).numpy()
        return found

    def _price(self, tokens: int) -> Cost:
        """The logits, computed again from the hidden states that the cache keeps: work, and no tokens."""
        return Cost(flops=self.engine.flops(0, 0, heads=tokens))

    def forget(self) -> None:
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        self.tokens(states, Limit(Ledger(), self.name))


def token_confidence(engine: Engine, read_as: Reading = "lowest", window: int = 16, top: int = 20) -> TokenConfidence:
    """The confidence with which `engine` wrote a chain, in nats, 0 or more: higher where it was surer of its tokens.

    engine: the one that writes, whose cache then has what is read. read_as: the "lowest" mean of `window` tokens in a
    row, the mean of the "bottom" tenth of such means, the mean of the last `window` tokens ("tail"), or of all
    ("mean"). top: of how many likeliest tokens. It is the model's at temperature 1, however its tokens were drawn.
    Preserves nothing: it is no probability. What the cache has lost is read again, as prompt tokens on the ledger.
    """
    if not isinstance(engine, Engine):
        raise UsageError(f"token_confidence({engine!r}): the engine that writes, such as language.load('chainlm-2m').")
    if read_as not in READINGS:
        raise UsageError(f"token_confidence(engine, read_as={read_as!r}): one of {', '.join(READINGS)}.")
    for name, value in {"window": window, "top": top}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"token_confidence(engine, {name}={value!r}): a whole number, 1 or more.")
    return TokenConfidence(f"{engine.name}-confidence", read_as, window, top, engine=engine)
