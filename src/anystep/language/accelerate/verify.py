"""Verifying drafts: how far does a row go along the tree that was guessed for it?

`Follow` walks where plain decoding would have gone: at each node the token that the state's own draw picks. Output is
plain decoding's, token for token, at any temperature. `Reject` is speculative sampling: Leviathan et al., "Fast
Inference from Transformers via Speculative Decoding" (2023) and Chen et al. (2023), with siblings tried one after the
other as in Miao et al., "SpecInfer" (2024), without replacement. Output has the model's law exactly, from other draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import keys as lineage
from anystep.language.accelerate.drafts import Draft
from anystep.language.engine.sampling import distribution, draw

TRIAL = 1 << 16  # lane of the first trial of a guess; drafters draw from the lanes between 0 and this


@dataclass(frozen=True)
class Place:
    """What a verifier reads of a row: logits (1 + nodes, vocab) after its last token and after each node of what was
    shown, the draft, the row's key, and the position of its next token."""

    logits: Tensor
    draft: Draft
    key: np.uint64
    position: int


@dataclass(frozen=True)
class Verdict:
    """The nodes accepted, from the root down; the token drawn after them; the log-probability of each of these tokens
    (nodes + 1) under the distribution the verifier drew it from."""

    nodes: tuple[int, ...]
    last: int
    logp: tuple[float, ...]


class Verifier(ABC):
    """keeps: "tokens" where output is plain decoding's token for token, "law" where it has the same distribution, or
    "nothing"."""

    name: str = "verifier"
    keeps: str = "nothing"

    @abstractmethod
    def verify(self, places: Sequence[Place], temperature: float, top_p: float) -> list[Verdict]:
        """One verdict a place."""

    def shown(self, draft: Draft, tokens: tuple[int, ...]) -> Draft:
        """What the target is shown of a draft for a row that has `tokens`: the draft, with more nodes behind its own
        for a verifier that needs them."""
        return draft


@dataclass(frozen=True)
class Follow(Verifier):
    """Takes the token that plain decoding takes, and goes on where it was guessed.

    Preserves the output exactly, token for token, at any temperature and top_p: the draw of (key, position) decides,
    whatever was drafted. At temperature 0 that is the greedy walk.
    """

    name = "follow"
    keeps = "tokens"

    def verify(self, places: Sequence[Place], temperature: float, top_p: float) -> list[Verdict]:
        path: list[list[int]] = [[] for _ in places]
        last, logp = [0] * len(places), [list[float]() for _ in places]
        walking = list(range(len(places)))
        while walking:
            at = [path[i][-1] + 1 if path[i] else 0 for i in walking]
            logits = torch.stack([places[i].logits[node] for i, node in zip(walking, at, strict=True)])
            own = np.array([places[i].key for i in walking], np.uint64)
            u = lineage.uniforms(own, np.array([places[i].position + len(path[i]) for i in walking], np.uint64))
            tokens, mass = draw(logits, u, temperature, top_p)
            on = []
            for i, node, token, p in zip(walking, at, tokens.tolist(), mass.tolist(), strict=True):
                tree = places[i].draft.tree
                logp[i].append(p)
                child = next((c for c in tree.children(node - 1) if tree.tokens[c] == token), None)
                if child is None:
                    last[i] = token
                else:
                    path[i].append(child)
                    on.append(i)
            walking = on
        return [Verdict(tuple(p), t, tuple(m)) for p, t, m in zip(path, last, logp, strict=True)]


@dataclass(frozen=True)
class Reject(Verifier):
    """Accepts a guess x drawn from q with probability min(1, p(x) / q(x)); after a refusal p becomes the normalised
    positive part of p - q, and the next sibling is tried.

    Preserves the model's distribution exactly (at its temperature and top_p), not the tokens of plain decoding: other
    draws are made, and where a step is cut decides which. A guess that was chosen rather than drawn counts as drawn
    with certainty.
    """

    name = "reject"
    keeps = "law"

    def verify(self, places: Sequence[Place], temperature: float, top_p: float) -> list[Verdict]:
        return [self._one(place, temperature, top_p) for place in places]

    def _one(self, place: Place, temperature: float, top_p: float) -> Verdict:
        tree, path, logp = place.draft.tree, list[int](), list[float]()
        while True:
            node = path[-1] if path else -1
            position = place.position + len(path)
            whole = distribution(place.logits[node + 1 :][:1], temperature, top_p)[0]
            q = place.draft.proposals.get(node)
            guesses = tree.children(node)
            u = lineage.uniforms(place.key, position, TRIAL + np.arange(len(guesses), dtype=np.uint64))
            taken, rest = tried(whole, q, [tree.tokens[child] for child in guesses], u)
            if taken is None:
                token = int(lineage.choose(rest[None], lineage.uniforms(place.key, [position]))[0])
                return Verdict(tuple(path), token, (*logp, float(np.log(whole[token]))))
            path.append(guesses[taken])
            logp.append(float(np.log(whole[tree.tokens[path[-1]]])))


def tried(
    p: NDArray[np.float64], q: NDArray[np.float64] | None, guesses: Sequence[int], u: NDArray[np.float64]
) -> tuple[int | None, NDArray[np.float64]]:
    """Which of `guesses` is accepted, or None, and the distribution that the token then comes from.

    p, q: (vocab,), what is wanted and what the first guess was drawn from; each further one was drawn from q without
    those before it. Without q the guesses were chosen. u: (guesses,) uniforms.
    """
    left = None if q is None else q.copy()
    for i, token in enumerate(guesses):
        chance = 1.0 if left is None else left[token]
        if u[i] * chance < p[token]:
            return i, p
        rest = p.copy()
        if left is None:
            rest[token] = 0.0
        else:
            rest = np.maximum(p - left, 0.0)
            left[token] = 0.0
            left /= left.sum() or 1.0
        p = rest / rest.sum() if rest.sum() > 0 else p  # nothing is left where p and q differ by rounding alone
    return None, p
