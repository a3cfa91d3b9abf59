"""Which tokens have followed these? Counts of n-grams of every order up to a length, from one sorted list of places.

The places of a text are sorted once by the tokens that stand there, so all places where some tokens occur lie side by
side, and what follows them is sorted too: a count is the width of a stretch. Source: Manber and Myers, "Suffix Arrays:
A New Method for On-Line String Searches" (SODA 1990), cut at `order` tokens.
"""

from __future__ import annotations

import ast
import pydoc_data.topics
import re
import sysconfig
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.language.engine.tokenizer import Tokenizer

GAP = -1  # stands between texts: no n-gram goes across


class NGrams:
    """Counts of up to `order` tokens in a row. Holds 4 bytes a token for the text and 4 for its sorted places."""

    def __init__(self, texts: Iterable[Sequence[int]], order: int = 6) -> None:
        """texts: their tokens, each 0 or more. Raises UsageError for an order below 2, or no tokens at all."""
        if not isinstance(order, int) or order < 2:
            raise UsageError(f"NGrams(texts, order={order!r}): 2 counts pairs of tokens; 6 is usual.")
        parts = [np.asarray(text, np.int32) for text in texts]
        if not sum(map(len, parts)):
            raise UsageError("NGrams(texts) needs some tokens to count; NGrams.of(['some text'], engine.tokenizer).")
        gap = np.full(1, GAP, np.int32)
        self.order = order
        self.tokens: NDArray[np.int32] = np.concatenate(
            [*(x for part in parts for x in (part, gap)), gap.repeat(order)]
        )
        size = len(self.tokens) - order
        columns = [self.tokens[depth : depth + size] for depth in range(order)]
        self.places: NDArray[np.int32] = np.lexsort(columns[::-1]).astype(np.int32)

    @classmethod
    def of(cls, texts: Iterable[str], tokenizer: Tokenizer, order: int = 6) -> NGrams:
        """Counts of the tokens of `texts`."""
        return cls((tokenizer.encode(text) for text in texts), order)

    def __len__(self) -> int:
        """How many tokens were counted."""
        return int((self.tokens != GAP).sum())

    def __repr__(self) -> str:
        return f"NGrams({len(self):,} tokens, order={self.order})"

    def share(self, past: Sequence[int], candidates: Sequence[int]) -> NDArray[np.float64] | None:
        """Of all that followed `past` (at most order - 1 tokens), the share that each candidate has; None where
        nothing ever did."""
        if len(past) >= self.order:
            raise UsageError(f"share(past, ...) looks back at most {self.order - 1} tokens here; got {len(past)}.")
        low, high = 0, len(self.places)
        for depth, token in enumerate(past):
            low, high = self._narrow(low, high, depth, token)
        low = bisect_left(self.places, 0, low, high, key=lambda place: self.tokens[place + len(past)])
        if low == high:
            return None
        stretches = (self._narrow(low, high, len(past), token) for token in candidates)
        return np.array([end - begin for begin, end in stretches]) / (high - low)

    def _narrow(self, low: int, high: int, depth: int, token: int) -> tuple[int, int]:
        """The part of a stretch of places that has `token` at `depth`."""

        def at(place: int) -> int:
            return self.tokens[place + depth]

        low = bisect_left(self.places, token, low, high, key=at)
        return low, bisect_right(self.places, token, low, high, key=at)


def documentation(*packages: str) -> Iterator[str]:
    """English prose that every machine with Python has, a paragraph a text: the docstrings of the standard library, or
    of `packages`, read out of their source in a fixed order. What it says depends on the versions installed.

    Raises UsageError for a package that is not installed.
    """
    for package in packages or (None,):
        folder = Path(sysconfig.get_paths()["stdlib"]) if package is None else _home(package)
        for text in _docstrings(folder):
            yield from paragraphs(text)


def reference() -> Iterator[str]:
    """The Python language reference, a paragraph a text: what `help()` shows for `with`, say."""
    topics: dict[str, str] = pydoc_data.topics.topics
    for name in sorted(topics):
        yield from paragraphs(topics[name])


def paragraphs(text: str) -> Iterator[str]:
    """Whole sentences of a text, unwrapped, a paragraph a line; tables, listings and headings are left out."""
    for block in re.split(r"\n\s*\n", text):
        line = " ".join(block.split())
        if re.match(r"[A-Z][a-z]* [a-z]", line) and line[-1] in ".:" and ">>>" not in line and len(line) >= 40:
            yield line


def _home(package: str) -> Path:
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UsageError(f"documentation({package!r}): no such package is installed; documentation('numpy') has one.")
    return Path(next(iter(found.submodule_search_locations)))


def _docstrings(folder: Path) -> Iterator[str]:
    """In the order of paths and lines, tests left out."""
    for path in sorted(folder.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # a template, or a file that is wrong on purpose
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""
