"""A language model so small that every output's probability is a known fraction."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Cost, Limit
from anystep.process import Floats, Potential, Status, Stepped, potential
from anystep.stepwise import Arrays, Moved, Stepwise

Tokens = tuple[int, ...]
EOS = 0


@dataclass(frozen=True, eq=False)
class Sequences(Arrays):
    """tokens: (n, length), -1 beyond size. size: (n,). note: (n,) what a critic wrote, 0 for nothing (see editors)."""

    tokens: NDArray[np.int8]
    size: NDArray[np.int64]
    note: NDArray[np.int64]

    def tuples(self) -> tuple[Tokens, ...]:
        return tuple(tuple(row[:k]) for row, k in zip(self.tokens.tolist(), self.size.tolist(), strict=True))


class EnumerableLM(Stepwise):
    """Tokens 0 (the end) to vocab - 1, at most `length` of them; the law of each depends on the whole prefix.

    An output ends with token 0 or at `length` tokens, so the outputs' probabilities sum to one. A step is `width`
    tokens, cut at absolute positions, so one that was refused in the middle ends where it would have. Each token costs
    one generated token and one evaluation. expands: offer the most likely next tokens (width 1 only). answer: what an
    output says, for votes; the output itself by default.
    """

    logp = "mass"
    states = Sequences

    def __init__(
        self,
        seed: int = 0,
        vocab: int = 3,
        length: int = 5,
        width: int = 1,
        expands: bool = False,
        answer: Callable[[Tokens], Hashable] = lambda tokens: tokens,
        name: str = "enumerable-lm",
    ) -> None:
        if not (2 <= vocab <= 10 and 1 <= length <= 7 and width >= 1) or (expands and width > 1):
            raise UsageError(
                f"EnumerableLM(vocab={vocab}, length={length}, width={width}, expands={expands}): vocab is 2 to 10, "
                "length 1 to 7, and it expands only with width=1; call EnumerableLM(vocab=3, length=5)."
            )
        self.vocab, self.length, self.width, self.expands, self.answer = vocab, length, width, expands, answer
        self.horizon, self.name = -(-length // width), name
        words = vocab - 1
        self._offset = np.concatenate([[0], np.cumsum([words**d for d in range(length)])])
        contexts = lineage.roots(seed, (), np.arange(self._offset[-1]))
        u = lineage.uniforms(contexts[:, None], np.arange(vocab)[None, :])
        self.numerators = 1 + np.floor(15 * u**3).astype(np.int64)  # cubed, so that some tokens are much likelier

    def forward(self, contexts: NDArray[np.int64]) -> Floats:
        """Next-token probabilities (n, vocab) after each context: all the work there is."""
        rows = self.numerators[contexts]
        return np.asarray(rows / rows.sum(-1, keepdims=True))

    def contexts(self, states: Sequences) -> NDArray[np.int64]:
        """The number of each unfinished prefix."""
        index = np.zeros(len(states), dtype=np.int64)
        for position in range(self.length - 1):
            longer = position < states.size
            index = np.where(longer, index * (self.vocab - 1) + states.tokens[:, position] - 1, index)
        return np.asarray(index + self._offset[states.size])

    def begin(self, keys: Keys) -> Sequences:
        n = len(keys)
        zeros = np.zeros(n, dtype=np.int64)
        return Sequences(np.full((n, self.length), -1, dtype=np.int8), zeros, zeros)

    def price(self, states: Sequences) -> Cost:
        return Cost(generated=1, evaluations=1)

    def boundary(self, states: Sequences) -> NDArray[np.bool_]:
        return np.asarray(states.size % self.width == 0)

    def advance(self, states: Sequences, keys: Keys) -> Moved:
        p = self.forward(self.contexts(states))
        token = lineage.choose(p, lineage.uniforms(keys, states.size))
        longer = self.appended(states, token)
        n = len(token)
        return Moved(longer, self.status(longer), np.log(p[np.arange(n), token]), np.zeros(n))

    def appended(self, states: Sequences, token: NDArray[np.int64]) -> Sequences:
        tokens = states.tokens.copy()
        tokens[np.arange(len(tokens)), states.size] = token
        return Sequences(tokens, states.size + 1, states.note)

    def status(self, states: Sequences) -> NDArray[np.int8]:
        last = states.tokens[np.arange(len(states)), np.maximum(states.size - 1, 0)]
        ended = (states.size == self.length) | ((last == EOS) & (states.size > 0))
        return np.where(ended, np.int8(Status.DONE), np.int8(Status.LIVE))

    def expand(self, states: Sequences, k: int, keys: Keys, limit: Limit) -> Stepped:
        """The k most likely next tokens of every state, likeliest first; a refused state is its own only child."""
        n, k = len(states), min(k, self.vocab)
        rows = np.arange(n)
        paid = limit.pay(rows, each=Cost(generated=k, evaluations=1), once=Cost(calls=1))
        moving = rows[paid]
        p = self.forward(self.contexts(states.take(moving))) if len(moving) else np.zeros((0, self.vocab))
        token = np.argsort(-p, axis=-1, kind="stable")[:, :k]
        children = self.appended(states.take(np.repeat(moving, k)), token.ravel())
        refused = rows[~paid]
        parent = np.concatenate([np.repeat(moving, k), refused])
        logp = np.concatenate([np.log(np.take_along_axis(p, token, -1)).ravel(), np.zeros(len(refused))])
        cut = np.arange(len(parent)) >= len(moving) * k
        order = np.argsort(parent, kind="stable")
        joined = children.join(states.take(refused)).take(order)
        zeros = np.zeros(len(parent))
        return Stepped(joined, self.status(joined), logp[order], zeros, limit.used, cut[order], parent=parent[order])

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return tuple(self.answer(t) for t in states.tuples())

    def texts(self, states: Sequences) -> tuple[str, ...]:
        return tuple(" ".join(map(str, t)) for t in states.tuples())

    @cached_property
    def outputs(self) -> dict[Tokens, Fraction]:
        """Every output and its probability."""
        found: dict[Tokens, Fraction] = {}
        open_: list[tuple[Tokens, Fraction]] = [((), Fraction(1))]
        while open_:
            prefix, mass = open_.pop()
            row = self.numerators[self.number(prefix)].tolist()
            for token, numerator in enumerate(row):
                longer, p = (*prefix, token), mass * Fraction(numerator, sum(row))
                if token == EOS or len(longer) == self.length:
                    found[longer] = p
                else:
                    open_.append((longer, p))
        return dict(sorted(found.items()))

    def tilted(self, weight: Callable[[Tokens], Any]) -> tuple[dict[Tokens, Any], Any]:
        """The law p(x) weight(x) / Z over outputs, and Z: fractions where `weight` gives fractions."""
        joint = {x: p * weight(x) for x, p in self.outputs.items()}
        total = sum(joint.values())
        return {x: j / total for x, j in joint.items()}, total

    def said(self, law: dict[Tokens, Any] | None = None) -> dict[Hashable, Any]:
        """The law over answers, of a law over outputs."""
        found: dict[Hashable, Any] = {}
        for x, p in (law or self.outputs).items():
            found[self.answer(x)] = found.get(self.answer(x), 0) + p
        return found

    def to_go(self) -> Potential:
        """The exact log-probability of the likeliest way to finish: A*'s perfect heuristic."""
        best = np.zeros(self._offset[-1])
        for prefix in sorted(self.prefixes(), key=len, reverse=True):
            row = self.numerators[self.number(prefix)]
            ends = len(prefix) + 1 == self.length
            after = [0.0 if t == EOS or ends else best[self.number((*prefix, t))] for t in range(self.vocab)]
            best[self.number(prefix)] = np.max(np.log(row / row.sum()) + after)

        def togo(states: Sequences) -> Floats:
            live = self.status(states) == Status.LIVE
            return np.where(live, best[np.where(live, self.contexts(states), 0)], 0.0)

        return potential(togo, "to_go")

    def prefixes(self) -> set[Tokens]:
        return {x[:i] for x in self.outputs for i in range(len(x))}

    def number(self, prefix: Tokens) -> int:
        """The row of `numerators` that says what follows an unfinished prefix."""
        number = 0
        for token in prefix:
            number = number * (self.vocab - 1) + token - 1
        return int(number + self._offset[len(prefix)])
