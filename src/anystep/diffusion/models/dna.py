"""DNA-like sequences: a law that can be computed, and a small masked transformer that learned it, shipped trained.

`python -m anystep.diffusion.models.dna --out FOLDER` trains the shipped one again.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.diffusion.masked.predictor import NetworkPredictor
from anystep.diffusion.masked.training import MaskedRecipe, load, save, train
from anystep.diffusion.masked.transformer import Shape

WEIGHTS = Path(__file__).parent / "data"
BASES = "ACGT"
LENGTH = 32
MOTIFS = ("TATAAA", "CCAAT", "GGGCGG")  # of the TATA box, the CAAT box and the GC box
CHANCES = (0.5, 0.35, 0.25)
# What follows A, C, G and T. A C is seldom followed by a G where there are few of either.
POOR = np.array([[0.4, 0.12, 0.18, 0.3], [0.36, 0.2, 0.04, 0.4], [0.34, 0.16, 0.2, 0.3], [0.3, 0.14, 0.2, 0.36]])
RICH = np.array([[0.2, 0.26, 0.36, 0.18], [0.2, 0.38, 0.14, 0.28], [0.18, 0.34, 0.34, 0.14], [0.14, 0.32, 0.36, 0.18]])

RECIPE = MaskedRecipe(Shape(LENGTH, len(BASES), width=64, layers=3, heads=4), updates=1_500, share="uniform")


def dna_data(n: int, seed: int = 0) -> NDArray[np.int64]:
    """(n, 32) sequences over ACGT: isochores of a first-order chain that is rich or poor in G and C, into which each
    motif is written with its chance, at a random place."""
    rng = np.random.default_rng(seed)
    rich = rng.random(n) < 0.5
    found = np.zeros((n, LENGTH), dtype=np.int64)
    found[:, 0] = rng.integers(0, 4, n)
    for i in range(1, LENGTH):
        law = np.where(rich[:, None], RICH[found[:, i - 1]], POOR[found[:, i - 1]])
        found[:, i] = np.minimum((law.cumsum(-1) <= rng.random(n)[:, None]).sum(-1), 3)
    for motif, chance in zip(MOTIFS, CHANCES, strict=True):
        word = np.array([BASES.index(base) for base in motif])
        rows = np.flatnonzero(rng.random(n) < chance)
        at = rng.integers(0, LENGTH - len(word) + 1, len(rows))
        found[rows[:, None], at[:, None] + np.arange(len(word))] = word
    return found


@cache
def dna() -> NetworkPredictor:
    """The shipped masked model of `dna_data`: 32 sites, symbols ACGT, no classes."""
    return load("dna", WEIGHTS, BASES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the shipped masked model of DNA-like sequences.")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    out = parser.parse_args().out
    module, cost = train(RECIPE, torch.from_numpy(dna_data(50_000)), say=print)
    save(module, RECIPE, cost, "dna", out)


if __name__ == "__main__":
    main()
