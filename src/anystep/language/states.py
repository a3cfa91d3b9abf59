"""What a language model's state is: its tokens, and where its prompt ends. Nothing that a cache holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from anystep.language.engine.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sequences:
    """n sequences side by side: `tokens[i]` is prompt and output, the output from `starts[i]` on.

    Forks share the tuples themselves.
    """

    tokens: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    tokenizer: Tokenizer = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: NDArray[np.int64]) -> Self:
        rows = np.asarray(index).tolist()
        return type(self)(tuple(self.tokens[i] for i in rows), tuple(self.starts[i] for i in rows), self.tokenizer)

    def join(self, *others: Self) -> Self:
        every = (self, *others)
        tokens = tuple(row for states in every for row in states.tokens)
        return type(self)(tokens, tuple(start for states in every for start in states.starts), self.tokenizer)

    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """Each row's generated tokens."""
        return tuple(tokens[start:] for tokens, start in zip(self.tokens, self.starts, strict=True))

    def texts(self) -> tuple[str, ...]:
        """Each row's generated text, as it was generated."""
        return self._decoded(self.outputs())

    def prompts(self) -> tuple[str, ...]:
        """Each row's prompt, without special tokens."""
        return self._decoded(tokens[:start] for tokens, start in zip(self.tokens, self.starts, strict=True))

    def unsaid(self) -> Self:
        """The same prompts, with nothing generated."""
        begun = tuple(tokens[:start] for tokens, start in zip(self.tokens, self.starts, strict=True))
        return type(self)(begun, self.starts, self.tokenizer)

    def _decoded(self, rows: Iterable[tuple[int, ...]]) -> tuple[str, ...]:
        known: dict[tuple[int, ...], str] = {}  # forks are equal: decode each text once
        return tuple(known[t] if t in known else known.setdefault(t, self.tokenizer.decode(t)) for t in rows)

    def dump(self) -> bytes:
        """As JSON; `read` is its inverse, given the tokenizer."""
        return json.dumps({"tokens": self.tokens, "starts": self.starts}).encode()

    @classmethod
    def read(cls, data: bytes, tokenizer: Tokenizer, vocab: int) -> Self:
        """Raises ValueError for what `dump` did not write, or tokens beyond the vocabulary."""
        record = json.loads(data)
        tokens, starts = tuple(map(tuple, record["tokens"])), tuple(record["starts"])
        for row, start in zip(tokens, starts, strict=True):
            if not all(type(token) is int and 0 <= token < vocab for token in row):
                raise ValueError(f"a token is none of 0..{vocab - 1}")
            if type(start) is not int or not 0 < start <= len(row):
                raise ValueError(f"an output begins at {start!r:.20} of {len(row)} tokens")
        return cls(tokens, starts, tokenizer)


class Piece(str):
    """A token's text as it is shown, the token, and its log-probability and those of the likeliest tokens under the
    model itself: at temperature 1 and over the whole vocabulary, however it was drawn."""

    token: int
    logp: float
    top: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, text: str, token: int, logp: float, top: tuple[tuple[int, float], ...]) -> Self:
        piece = cls(text)
        piece.token, piece.logp, piece.top = token, logp, top
        return piece
