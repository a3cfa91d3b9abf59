"""Text for perplexity that every installation has: Python's language reference and this catalogue's descriptions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pydoc_data.topics import topics

from anystep import catalogue

HELD_OUT = ("typesseq", "attribute-access", "customization", "execmodel", "assignment", "import", "try", "objects")
CALIBRATION = ("debugger", "comparisons", "naming", "strings")


def held_out(encode: Callable[[str], Sequence[int]], windows: int, size: int = 512) -> list[list[int]]:
    """The first `size` tokens of that many texts, every third of them of the catalogue, which no model has read."""
    ours = iter(_pieces(encode(" ".join(row.what for row in catalogue.rows())), size))
    texts = iter(HELD_OUT)
    return [next(ours) if i % 3 == 2 else list(encode(topics[next(texts)]))[:size] for i in range(windows)]


def calibration(encode: Callable[[str], Sequence[int]], size: int = 512) -> list[list[int]]:
    """Texts of the reference that are not held out."""
    return [list(encode(topics[name]))[:size] for name in CALIBRATION]


def fingerprint() -> str:
    """Which texts these are: the reference differs by Python's version."""
    whole = "".join(topics[name] for name in HELD_OUT) + "".join(row.what for row in catalogue.rows())
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def _pieces(tokens: Sequence[int], size: int) -> list[list[int]]:
    return [list(tokens[at : at + size]) for at in range(0, len(tokens) - size + 1, size)]
