"""8x8 images of handwritten digits, with a fixed choice that no model of ours is trained on.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
CC BY 4.0, doi 10.24432/C50P49; as scikit-learn ships its test part. Written by `tools/digits_data.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from anystep.errors import UsageError

FILE = Path(__file__).parent / "data" / "digits-8x8.safetensors"
GREYS = 16  # the data's largest value


@dataclass(frozen=True)
class Images:
    """images: (n, size, size) float32 in [-1, 1], -1 where nothing is written. labels: (n,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def of(self, digit: int) -> Images:
        """Those of one class."""
        return Images(self.images[self.labels == digit], self.labels[self.labels == digit])


@cache
def digits_data(split: str = "train") -> Images:
    """The 1,297 digits to train on, or the 500 "held-out" ones. Raises UsageError for another split."""
    if split not in ("train", "held-out"):
        raise UsageError(f"digits_data({split!r}): the splits are digits_data('train') and digits_data('held-out').")
    found = load_file(FILE)
    rows = (found["held_out"] == 1) == (split == "held-out")
    return Images(found["images"][rows].float() / (GREYS / 2) - 1, found["labels"][rows].long())
