"""Text that a stranger wrote, as tokens: the names of special tokens in it stay text, and never become those tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable

from anystep.errors import UsageError
from anystep.language.engine.tokenizer import Tokenizer


class Plain:
    """Encodes text for `tokenizer` so that none of its special or end tokens comes of it, whatever it spells.

    `also`: further tokens that stand for no text, as those of a chat template whose file calls them ordinary words.
    """

    def __init__(self, tokenizer: Tokenizer, also: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        names = {*tokenizer.special, *map(tokenizer.written, {*tokenizer.ends, *also})}
        names = {name for name in names if len(name) > 1}  # a character that ends an answer, as ChainLM's, is text too
        self.forbidden = frozenset(token for name in names for token in _alone(tokenizer, name))
        longest_first = sorted(names, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, longest_first))) if names else None

    def encode(self, text: str) -> list[int]:
        """Tokens of `text`. Raises UsageError where this vocabulary cannot write it without a special token."""
        tokens = self.tokenizer.encode(text)
        if self.forbidden.intersection(tokens):
            tokens = [token for part in self._parted(text) for token in self.tokenizer.encode(part)]
        if self.forbidden.intersection(tokens):  # a name made of another name's halves
            tokens = [token for character in text for token in self.tokenizer.encode(character)]
        if self.forbidden.intersection(tokens):
            raise UsageError("the text cannot be written in this model's vocabulary without its special tokens")
        return tokens

    def _parted(self, text: str) -> list[str]:
        """The text cut in the middle of every name."""
        if self._names is None:
            return [text]
        edges = [0, *((m.start() + m.end()) // 2 for m in self._names.finditer(text)), len(text)]
        return [text[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]


def _alone(tokenizer: Tokenizer, name: str) -> list[int]:
    """The token that a name is written for."""
    tokens = tokenizer.encode(name)
    return tokens if len(tokens) == 1 else []
