"""Perplexity consistency: an answer weighs as much as the distinct paths to it are probable.

Source: Zhou et al., "Bridging Internal Probability and Self-Consistency for Effective and Efficient LLM Reasoning"
(2025), arXiv 2502.00511, and "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM
Reasoning" (NeurIPS 2025), arXiv 2510.15444.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict
from anystep.process import Floats
from anystep.search.decide.pruning import probable
from anystep.search.decide.votes import first_finished


@dataclass(frozen=True)
class Paths:
    """The finished samples of a population that say something, in order.

    rows: (n,) in the population. texts, answers: (n,). logp: (n,) of the path, the same for equal texts.
    """

    rows: tuple[int, ...]
    texts: tuple[str, ...]
    answers: tuple[Hashable, ...]
    logp: Floats

    @classmethod
    def of(cls, population: Population) -> Paths:
        """A path is its text: drawn twice, or computed twice with different last bits, it is one path. Where texts are
        equal their largest logp stands for them."""
        answers, texts = population.answers or (), population.texts or ()
        said = population.done & np.isfinite(population.logp)
        rows = tuple(i for i, answer in enumerate(answers) if said[i] and answer is not None)
        best: dict[str, float] = {}
        for i in rows:
            best[texts[i]] = max(best.get(texts[i], -np.inf), float(population.logp[i]))
        own = tuple(texts[i] for i in rows)
        return cls(rows, own, tuple(answers[i] for i in rows), np.array([best[t] for t in own], dtype=np.float64))

    def distinct(self) -> list[int]:
        """The place of each text's first sample, in order."""
        first: dict[str, int] = {}
        for i, text in enumerate(self.texts):
            first.setdefault(text, i)
        return list(first.values())


def estimates(population: Population, prune: bool = False) -> dict[Hashable, float]:
    """Each answer's log-probability as the samples show it: the log of the summed probability of its distinct paths.

    Of n samples, not pruned, the sum has expectation sum p (1 - (1 - p)^n) over the answer's paths, so it is short of
    the answer's probability by the mass that was not yet seen; all sums together say how much was.
    """
    return _estimates(Paths.of(population), prune)[0]


def _estimates(paths: Paths, prune: bool) -> tuple[dict[Hashable, float], dict[Hashable, int]]:
    """The estimates, and the row of each answer's likeliest path."""
    kept = probable(paths.logp) if prune else np.ones(len(paths.rows), dtype=bool)
    own: dict[Hashable, list[int]] = {}
    for i in paths.distinct():
        if kept[i]:
            own.setdefault(paths.answers[i], []).append(i)
    sums = {answer: float(np.logaddexp.reduce(paths.logp[mine])) for answer, mine in own.items()}
    return sums, {answer: paths.rows[mine[int(np.argmax(paths.logp[mine]))]] for answer, mine in own.items()}


@dataclass(frozen=True)
class _PerplexityConsistency:
    prune: bool

    def __call__(self, population: Population) -> Verdict:
        paths = Paths.of(population)
        sums, rows = _estimates(paths, self.prune)
        if not sums:
            return first_finished(population)
        winner = max(sums, key=lambda answer: sums[answer])
        seen = _estimates(paths, False)[0] if self.prune else sums  # what was left out is still a doubt
        whole = float(np.logaddexp.reduce(list(seen.values())))
        return Verdict(rows[winner], min(1.0, float(np.exp(seen[winner] - whole))))


def perplexity_consistency(prune: bool = True) -> Decision:
    """The answer whose distinct sampled paths have the largest summed probability, shown by its likeliest path.

    Each distinct path counts once, with its own probability (see `estimates`). `logp` must be that of the distribution
    the samples were drawn from, temperature and truncation included. prune: leave out improbable paths first
    (`pruning.probable`). A tie goes to the answer that came first. support: the answer's share of the probability of
    all distinct paths, those that were left out included: without them it would be surer than it is right.
    """
    if not isinstance(prune, bool):
        raise UsageError(f"perplexity_consistency(prune={prune!r}): True or False, such as prune=False.")
    name = f"perplexity_consistency(prune={prune})"
    return Decision(name, _PerplexityConsistency(prune), texts=True, mass=True)
