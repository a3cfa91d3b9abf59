"""Small grey images as PNG grids and as half blocks of text, with nothing but zlib."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError

Grey = NDArray[np.uint8]
INK, PAPER, BETWEEN = 0, 255, 208  # greys of what is written, of empty pixels, and of the lines of a grid


def grey(images: Any, low: float = -1.0, high: float = 1.0) -> Grey:
    """(n, height, width) values, ink at `high`, as bytes of grey, dark on light; what lies outside is cut."""
    values = np.asarray(images, dtype=np.float64)
    if values.ndim != 3:
        raise UsageError(f"images of shape {values.shape}: (n, height, width); give grid(samples.x, columns=8).")
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.asarray(np.round(PAPER + share * (INK - PAPER)), dtype=np.uint8)


def grid(images: Any, columns: int, scale: int = 4, low: float = -1.0, high: float = 1.0) -> Grey:
    """(n, height, width) images side by side, `columns` a row, each pixel `scale` wide, lines of grey between.

    Raises UsageError for images of another shape, none, and sizes below 1.
    """
    shades = grey(images, low, high)
    n, height, width = shades.shape
    if min(n, columns, scale) < 1:
        raise UsageError(f"grid of {n} images, columns={columns}, scale={scale}: at least 1 each; grid(x, columns=8).")
    columns = min(columns, n)
    rows, gap = -(-n // columns), max(1, scale // 2)
    high_, wide = height * scale + gap, width * scale + gap
    page = np.full((rows * high_ + gap, columns * wide + gap), BETWEEN, dtype=np.uint8)
    for i, image in enumerate(shades):
        top, left = gap + i // columns * high_, gap + i % columns * wide
        page[top : top + height * scale, left : left + width * scale] = image.repeat(scale, 0).repeat(scale, 1)
    return page


def png(image: Grey) -> bytes:
    """An image (height, width) of bytes as an 8-bit grey PNG."""
    height, width = image.shape
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(image, dtype=np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def half_blocks(images: Any, width: int = 80, low: float = -1.0, high: float = 1.0) -> str:
    """Images side by side as text, two pixels a character, one above the other: ink where a pixel is over the middle.

    width: of a line at most; as many images stand in a row as fit, at least one.
    """
    dark = grey(images, low, high) < (INK + PAPER) / 2
    n, height, wide = dark.shape
    if height % 2:
        dark = np.concatenate([dark, np.zeros((n, 1, wide), dtype=bool)], 1)
    upper, lower = dark[:, 0::2].astype(int), dark[:, 1::2].astype(int)
    signs = np.array([[" ", "▄"], ["▀", "█"]])[upper, lower]
    each = max(1, (width + 2) // (wide + 2))
    blocks = [_beside(signs[at : at + each]) for at in range(0, n, each)]
    return "\n\n".join(blocks)


def _beside(signs: NDArray[Any]) -> str:
    lines: Sequence[str] = ["  ".join("".join(line) for line in across) for across in signs.swapaxes(0, 1)]
    return "\n".join(line.rstrip() for line in lines)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
