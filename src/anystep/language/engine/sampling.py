"""Logits to a choice: temperature, nucleus, and one uniform a row turned into a token by the inverse distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys
from anystep.language.engine.native.drawing import drawn, draws

BLOCK = 1 << 16  # probabilities that are worked on at once
COLD = 1e-9  # logits over a temperature below it are too large for the kernel to tell one from the next
ROUNDING = 1e-6  # how near to 1 top_p may be for sums of probabilities to be told from it safely


def distribution(logits: Tensor, temperature: float, top_p: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (rows, vocab) in float64: softmax of logits / temperature, cut to the smallest nucleus of top_p.

    Temperature 0 puts all mass on the largest logit (the first of equals). The nucleus keeps the likeliest tokens
    until their mass reaches top_p, and is renormalised: Holtzman et al. (2020).
    """
    scores = logits.double().cpu().numpy()
    if temperature == 0:
        p = np.zeros_like(scores)
        p[np.arange(len(p)), scores.argmax(-1)] = 1.0
        return p
    p = scores / temperature  # in place from here: what a row needs stays in the processor's cache
    p -= p.max(-1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(-1, keepdims=True)
    if top_p < 1:
        for row in p:
            row[~nucleus(row, top_p)] = 0.0
        p /= p.sum(-1, keepdims=True)
    return p


def nucleus(p: NDArray[np.float64], top_p: float) -> NDArray[np.bool_]:
    """Which of the probabilities p are in the smallest set of the likeliest, the first of equals before others, whose
    mass reaches top_p. Only those that can be are sorted: all below `least` together are too light to matter."""
    least = (1 - top_p) / 2 / len(p) if top_p < 1 - ROUNDING else 0.0
    some = np.flatnonzero(p >= least)
    order = some[np.argsort(-p[some], kind="stable")]
    before = np.cumsum(p[order]) - p[order]
    kept = np.zeros(len(p), bool)
    kept[order[before < top_p]] = True
    return kept


def draw(
    logits: Tensor, u: NDArray[np.float64], temperature: float, top_p: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One token a row at u in [0, 1), and its log-probability under the distribution it was drawn from."""
    if temperature == 0:
        return logits.argmax(-1).cpu().numpy(), np.zeros(len(logits))
    if top_p >= 1 and temperature >= COLD and draws(logits):
        tokens, shares = drawn(logits, u, temperature)
        return tokens, np.log(shares)
    rows = max(BLOCK // logits.shape[-1], 1)
    chosen, chances = [np.zeros(0, np.int64)], [np.zeros(0)]
    for start in range(0, len(logits), rows):
        p = distribution(logits[start : start + rows], temperature, top_p)
        tokens = keys.choose(p, u[start : start + rows])
        chosen.append(tokens)
        chances.append(p[np.arange(len(p)), tokens])
    return np.concatenate(chosen), np.log(np.concatenate(chances))


def alternatives(
    logits: Tensor, tokens: NDArray[np.int64], k: int
) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
    """For each row the log-probability of its token under softmax(logits), and the k likeliest tokens with theirs."""
    scores = logits.double().cpu().numpy()
    logp = scores - scores.max(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    top = np.argsort(-logp, -1, kind="stable")[:, :k]
    return [
        (float(row[token]), tuple((t, float(row[t])) for t in best.tolist()))
        for row, token, best in zip(logp, tokens.tolist(), top, strict=True)
    ]
