"""Pictures: PNG files that others read, half blocks, and figures on a page."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from anystep import UsageError
from anystep.view import Figure, Measured, Section, grid, half_blocks, levels, levels_legend, page, png


def read(data: bytes) -> np.ndarray:
    """The pixels of an 8-bit grey PNG, read by its specification: every chunk's sum is checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, {}
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        found[kind] = body
        at += 12 + size
    assert list(found) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", found[b"IHDR"])
    assert (depth, colour, rest) == (8, 0, [0, 0, 0])
    lines = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()  # no filter
    return lines[:, 1:]


def test_a_png_holds_its_pixels() -> None:
    image = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
    assert (read(png(image)) == image).all()
    assert (read(png(image[:, ::2])) == image[:, ::2]).all()  # not contiguous


def test_a_grid_lays_images_side_by_side() -> None:
    images = np.full((3, 2, 2), -1.0)
    images[0, 0, 0], images[2] = 1.0, 5.0  # what is too dark is cut
    page_ = grid(images, columns=2, scale=2)
    assert page_.shape == (2 * 5 + 1, 2 * 5 + 1)
    assert (page_[1:3, 1:3] == 0).all() and (page_[1:3, 3:5] == 255).all()  # ink and paper of the first
    assert (page_[6:10, 1:5] == 0).all()  # the third, in the second row
    assert (page_[0] == 208).all() and (page_[:, 5] == 208).all() and (page_[6:, 6:] == 208).all()


def test_half_blocks_show_two_pixels_a_character() -> None:
    ink = np.array([[[1, 1, -1, -1], [1, -1, 1, -1], [-1, 1, -1, 1]]], dtype=float)
    assert half_blocks(ink) == "█▀▄\n ▀ ▀"
    assert half_blocks(np.repeat(ink, 3, 0), width=10) == "█▀▄   █▀▄\n ▀ ▀   ▀ ▀\n\n█▀▄\n ▀ ▀"


def test_a_page_shows_pictures_without_fetching_them() -> None:
    svg = levels({"a": [Measured(1, 0.2, 0.1), Measured(8, 0.01)]}, "energy", floor=Measured(1, -0.01, 0.005))
    figures = (
        Figure("how to <read>", svg={"energy": svg}, legend=levels_legend(["a"], "real")),
        Figure("a grid", png=png(np.zeros((2, 2), np.uint8)), alt="two"),
    )
    text = page("Title", [Section("Part", figures=figures, table=(["solver", "x"], [["a", "1"]]))])
    assert "how to &lt;read&gt;" in text and 'src="data:image/png;base64,' in text and "<td" in text
    assert "img-src data:" in text and "img-src" not in page("Title", [Section("Part", figures=figures[:1])])
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(("low", "straight"), [(-0.01, True), (0.01, False), (0.5, True)])
def test_levels_place_points_by_their_figures(low: float, straight: bool) -> None:
    drawn = levels({"a": [Measured(4, low), Measured(1, 1.0)], "b<": [Measured(2, 0.6)]}, "energy")
    points = drawn.split('points="')[1].split('"')[0].split()
    (x1, y1), (x4, y4) = (map(float, p.split(",")) for p in points)  # by cost, dearest last
    assert x1 < x4 and y1 < y4 and "b&lt;" in drawn and "b<" not in drawn
    (x2, y2) = map(float, drawn.split('points="')[2].split('"')[0].split(","))
    assert abs(x2 - (x1 + x4) / 2) < 0.2  # 2 lies halfway from 1 to 4 on a logarithmic axis
    share = (0.6 - low) / (1 - low) if straight else np.log(0.6 / low) / np.log(1 / low)
    assert abs((y4 - y2) / (y4 - y1) - share) < 0.01


def test_nothing_to_draw_draws_nothing() -> None:
    assert levels({}, "energy") == "" and levels({"a": [Measured(3, 0.5)]}, "energy") != ""


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    for call in (lambda: grid(np.zeros((4, 4)), 2), lambda: grid(np.zeros((0, 2, 2)), 2), lambda: half_blocks([1.0])):
        with pytest.raises(UsageError, match="grid"):
            call()
