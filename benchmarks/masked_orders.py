"""What docs/diffusion/masked.md measures: how far the bigrams of unmasked sequences lie from a chain's own, by order
and number of passes, with a model whose conditionals are exact.

    python benchmarks/masked_orders.py
"""

from __future__ import annotations

import numpy as np

from anystep.diffusion.masked import Confidence, LeftToRight, MaskedProcess, Order, Random, Spread, sample
from anystep.diffusion.models import MarkovChain, chain
from anystep.experiments._figures import table

PASSES = (1, 2, 4, 8, 16)
ORDERS: list[Order] = [Random(), Spread(), LeftToRight(), Confidence(0.0), Confidence(4.0)]


def gap(model: MarkovChain, x: np.ndarray) -> float:
    """Total variation between the bigrams of sequences and the model's."""
    found = np.zeros((model.symbols, model.symbols))
    np.add.at(found, (x[:, :-1].ravel(), x[:, 1:].ravel()), 1)
    return float(0.5 * np.abs(found / found.sum() - model.bigrams()).sum())


def main(n: int = 20_000) -> None:
    model, rows = chain(), []
    for order in ORDERS:
        drawn = [sample(MaskedProcess(model, steps, order), n).tokens.numpy() for steps in PASSES]
        likelihood = float(model.log_prob(drawn[-1]).mean())
        rows.append([repr(order), *(gap(model, x) for x in drawn), likelihood])
    real = model.draw(n, seed=0)
    rows.append(["the chain itself", *[gap(model, real)] * len(PASSES), float(model.log_prob(real).mean())])
    print(table(["order", *(f"{s} passes" for s in PASSES), "log p at 16"], rows))


if __name__ == "__main__":
    main()
