"""Markov chains as masked models: every conditional exact, so that orders of unmasking can be told right from wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from anystep.diffusion.denoiser import NULL
from anystep.diffusion.masked.predictor import Predictor
from anystep.errors import UsageError


class MarkovChain(Predictor):
    """Exact conditionals of a Markov chain at hidden sites, given the revealed ones, by the forward-backward recursion.

    first: (symbols,) law of the first site, or (classes, symbols). moves: (symbols, symbols) from row to column, or
    (classes, symbols, symbols). length: sites. Without a condition, classes are equally likely. alphabet: a character a
    symbol, for texts. float64. Raises UsageError for shapes that do not fit and rows that do not sum to one.
    """

    dtype = torch.float64

    def __init__(
        self, first: ArrayLike, moves: ArrayLike, length: int, name: str = "markov", alphabet: str = ""
    ) -> None:
        self.first, self.moves = (np.asarray(a, dtype=np.float64) for a in (first, moves))
        self.classes = len(self.first) if self.first.ndim == 2 else 0
        self.first, self.moves = np.atleast_2d(self.first), self.moves.reshape(-1, *self.moves.shape[-2:])
        k, v = self.first.shape
        sums = np.concatenate([self.first.sum(-1), self.moves.sum(-1).ravel()])
        if self.moves.shape != (k, v, v) or length < 1 or not np.allclose(sums, 1) or len(alphabet) not in (0, v):
            raise UsageError(
                "MarkovChain(first, moves, length): (symbols,) and (symbols, symbols), or both with classes first; "
                "rows that sum to one, and an alphabet of as many characters as symbols, or none."
            )
        self.length, self.symbols, self.name, self.alphabet = length, v, name, alphabet
        self._first, self._moves = torch.from_numpy(self.first), torch.from_numpy(self.moves)

    def __call__(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.forward(tokens, condition)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        ones = torch.ones(self.symbols, dtype=torch.float64)
        shown = torch.cat([torch.eye(self.symbols, dtype=torch.float64), ones[None]])  # the last row is the mask's
        each = torch.stack([self._within(shown[tokens], k) for k in range(len(self.first))], 1)  # (n, k, L, v)
        allowed = (condition[:, None] == NULL) | (condition[:, None] == torch.arange(each.shape[1]))
        joint = (each * allowed[:, :, None, None]).sum(1)
        return (joint / _along(joint)).log()

    def _within(self, shown: Tensor, k: int) -> Tensor:
        """(n, L, v) joint of a site's symbol and the revealed ones, under class k."""
        ahead, behind, moves = [shown[:, 0] * self._first[k]], [torch.ones_like(shown[:, 0])], self._moves[k]
        for i in range(1, self.length):
            ahead.append(_times(ahead[-1], moves) * shown[:, i])
            behind.append(_times(shown[:, -i] * behind[-1], moves.T))
        return torch.stack(ahead, 1) * torch.stack(behind[::-1], 1)

    def log_prob(self, tokens: ArrayLike, condition: int = NULL) -> NDArray[np.float64]:
        """(n,) log-probability of whole sequences (n, length), under a class or, without one, their mixture."""
        x = np.atleast_2d(np.asarray(tokens, dtype=np.int64))
        logs = np.log(self.first[:, x[:, 0]]) + np.log(self.moves[:, x[:, :-1], x[:, 1:]]).sum(-1)
        if condition != NULL:
            return np.asarray(logs[condition])
        return np.asarray(np.logaddexp.reduce(logs, 0) - np.log(len(self.first)))

    def bigrams(self) -> NDArray[np.float64]:
        """(v, v) law of two neighbours, their place drawn at random."""
        found = np.zeros((self.symbols, self.symbols))
        for first, moves in zip(self.first, self.moves, strict=True):
            at = first
            for _ in range(self.length - 1):
                found += at[:, None] * moves
                at = at @ moves
        return np.asarray(found / found.sum())

    def draw(self, n: int, seed: int, condition: int = NULL) -> NDArray[np.int64]:
        """n sequences of the chain itself, (n, length)."""
        rng = np.random.default_rng(seed)
        which = rng.integers(0, len(self.first), n) if condition == NULL else np.full(n, condition)
        found = np.zeros((n, self.length), dtype=np.int64)
        for i in range(self.length):
            law = self.first[which] if i == 0 else self.moves[which, found[:, i - 1]]
            found[:, i] = np.minimum((law.cumsum(-1) <= rng.random(n)[:, None]).sum(-1), self.symbols - 1)
        return found

    def texts(self, tokens: Tensor) -> tuple[str, ...]:
        if not self.alphabet:
            return super().texts(tokens)
        return tuple("".join((self.alphabet + "_")[i] for i in row) for row in tokens.tolist())


class Table(Predictor):
    """Exact conditionals of any law over whole sequences, given as a table: for few sites and symbols.

    law: (symbols,) * length probabilities, summing to one. Every sequence that can be revealed must have some
    probability. Raises UsageError for a law that does not sum to one or has axes of unequal length.
    """

    dtype = torch.float64

    def __init__(self, law: ArrayLike, name: str = "table") -> None:
        self.law = np.asarray(law, dtype=np.float64)
        if self.law.ndim < 1 or len(set(self.law.shape)) != 1 or not np.isclose(self.law.sum(), 1):
            raise UsageError("Table(law): an array with one axis a site, all of one length, that sums to one.")
        self.length, self.symbols, self.name = self.law.ndim, len(self.law), name
        sequences = np.stack(np.unravel_index(np.arange(self.law.size), self.law.shape), -1)
        self._sequences, self._law = torch.from_numpy(sequences), torch.from_numpy(self.law.ravel())

    def __call__(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.forward(tokens, condition)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        fits = ((tokens[:, None] == self._sequences) | (tokens[:, None] == self.mask)).all(-1) * self._law
        is_symbol = self._sequences[..., None] == torch.arange(self.symbols)  # (sequences, L, v)
        joint = (fits[:, :, None, None] * is_symbol).sum(1)
        return (joint / _along(joint)).log()


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows @ matrix, added one after the other: a matrix product may round a row by what else is in the batch."""
    found = rows[:, :1] * matrix[0]
    for j in range(1, len(matrix)):
        found = found.addcmul_(rows[:, j : j + 1], matrix[j])
    return found


def _along(joint: Tensor) -> Tensor:
    """Totals over the symbols, added one after the other."""
    return joint.cumsum(-1)[..., -1:]


def chain(length: int = 16, symbols: int = 6, seed: int = 0, stay: float = 0.5) -> MarkovChain:
    """A stationary chain drawn at random: with probability `stay` a symbol is repeated, else the next one is drawn from
    a row of moves that are a softmax of normals of standard deviation 2. Raises UsageError for a stay outside [0, 1).
    """
    if not 0 <= stay < 1:
        raise UsageError(f"chain(stay={stay!r}): a probability below 1; chain(stay=0.5).")
    rng = np.random.default_rng(seed)
    moves = np.exp(2.0 * rng.standard_normal((symbols, symbols)))
    moves = stay * np.eye(symbols) + (1 - stay) * moves / moves.sum(-1, keepdims=True)
    first = np.linalg.matrix_power(moves, 10_000)[0]
    return MarkovChain(first / first.sum(), moves / moves.sum(-1, keepdims=True), length, name="chain")
