"""Repeated sampling: n independent samples, every answer of which is submitted."""

from __future__ import annotations

from anystep.procedure import Count, Exploring, procedure, start, step
from anystep.search import decide


@procedure(decide=decide.every_answer)
def repeated_sampling(n: Count) -> Exploring:
    """n independent samples; all distinct answers are submitted (`answer.submitted`), the most frequent first, and the
    first of them is the answer.

    Preserves the process's distribution exactly, as `sample` does. What it buys is coverage, the chance that one of n
    is right, which counts where something outside can tell: tests, a proof checker, a user. Its law in n, and what it
    will be at more samples, is `anystep.bench.coverage`'s. Where nothing can tell it is a vote, and that stops gaining
    long before coverage does.
    Source: Brown et al., "Large Language Monkeys: Scaling Inference Compute with Repeated Sampling" (2024), arXiv
    2407.21787.
    """
    population = yield from start(n)
    return (yield from step(population, until="done"))
