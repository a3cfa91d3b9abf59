"""What a language model's state is: tokens, where the prompt ends, who wrote what. Nothing that a cache holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from anystep.language.engine.tokenizer import Tokenizer

Writers = tuple[tuple[str, int], ...]  # a process's name and the position that its text begins at, in order


@dataclass(frozen=True)
class Sequences:
    """n sequences side by side: `tokens[i]` is prompt and output, the output from `starts[i]` on.

    writers: who wrote each row's output, where processes have told; a state that several step in turn has several.
    Forks share the tuples themselves.
    """

    tokens: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    tokenizer: Tokenizer = field(repr=False, compare=False)
    writers: tuple[Writers, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.writers:
            object.__setattr__(self, "writers", ((),) * len(self.tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: NDArray[np.int64]) -> Self:
        rows = np.asarray(index).tolist()
        tokens, starts = tuple(self.tokens[i] for i in rows), tuple(self.starts[i] for i in rows)
        return type(self)(tokens, starts, self.tokenizer, tuple(self.writers[i] for i in rows))

    def join(self, *others: Self) -> Self:
        every = (self, *others)
        tokens = tuple(row for states in every for row in states.tokens)
        starts = tuple(start for states in every for start in states.starts)
        return type(self)(tokens, starts, self.tokenizer, tuple(row for states in every for row in states.writers))

    def written(self, tokens: tuple[tuple[int, ...], ...], name: str) -> Self:
        """These states with `tokens` in place of theirs, where the process of this name wrote what is new."""
        found = []
        for old, new, told in zip(self.tokens, tokens, self.writers, strict=True):
            same = len(new) == len(old) or (told and told[-1][0] == name)
            found.append(told if same else (*told, (name, len(old))))
        return type(self)(tokens, self.starts, self.tokenizer, tuple(found))

    def drawn(self, name: str) -> tuple[int, ...]:
        """How long each row was when the process of this name wrote its last token there, 0 where it wrote none; where
        nobody told who wrote, all is its own."""
        found = []
        for tokens, start, told in zip(self.tokens, self.starts, self.writers, strict=True):
            edges = [at for _, at in told[1:]] + [len(tokens)]
            own = [end for (writer, _), end in zip(told, edges, strict=False) if writer == name]
            found.append(own[-1] if own else len(tokens) if not told and len(tokens) > start else 0)
        return tuple(found)

    def contents(self) -> tuple[tuple[int, ...], ...]:
        """What tells states apart: their tokens."""
        return self.tokens

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
        told = {"writers": self.writers} if any(self.writers) else {}
        return json.dumps({"tokens": self.tokens, "starts": self.starts} | told).encode()

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
        told = tuple(tuple((name, at) for name, at in row) for row in record.get("writers", [[]] * len(tokens)))
        if len(told) != len(tokens) or not all(type(n) is str and type(at) is int for row in told for n, at in row):
            raise ValueError("writers are a name and a position each")
        return cls(tokens, starts, tokenizer, told)


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
