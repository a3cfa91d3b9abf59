"""Writes the 8x8 digits that the package carries: `python tools/digits_data.py`, with scikit-learn installed.

scikit-learn ships the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998, CC BY 4.0): 1,797 images of 8x8 with values 0 to 16, by 13 writers. They are kept as they
are, as bytes, with a fixed choice of 500 that no model is trained on.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

HELD_OUT = 500
WHERE = Path(__file__).parent.parent / "src" / "anystep" / "diffusion" / "models" / "data" / "digits-8x8.safetensors"


def main() -> None:
    found = load_digits()
    images, labels = found.images.astype(np.uint8), found.target.astype(np.uint8)
    held_out = np.zeros(len(images), dtype=np.uint8)
    held_out[Random(0).sample(range(len(images)), HELD_OUT)] = 1
    save_file({"images": images, "labels": labels, "held_out": held_out}, WHERE)
    print(f"{WHERE}: {len(images)} images, {WHERE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
