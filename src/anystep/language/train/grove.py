"""Several chains of one prompt in one row: the prompt is read once, each chain sees it and itself only.

A judge learns most from siblings, and most of a short chain's cost is its prompt; sharing it makes a labelled chain
about three times cheaper. Positions restart behind the prompt, so a chain is computed as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, Verdict, family_of

WRONG = len(Verdict)  # a label that names no reason
UNLABELLED = len(Verdict) + 1  # a step of which nothing is known


@dataclass(frozen=True)
class Labelled:
    """A prompt, its chains, and a label for each of their finished steps: the checker's verdict, or what somebody else
    says: `Verdict.RIGHT`, `WRONG` or `UNLABELLED`."""

    prompt: str
    chains: list[str]
    verdicts: Sequence[tuple[int, ...]]


def label(prompt: str, chains: list[str]) -> Labelled:
    """Distinct finished chains of a prompt with exact verdicts."""
    chains = sorted({c for c in chains if CHAIN_END in c})
    family = family_of(prompt)
    return Labelled(prompt, chains, [tuple(family.judge(prompt, c)) for c in chains])


@dataclass(frozen=True)
class Grove:
    """A batch, all of it (rows, time): what each token is, where it stands, and what judges it.

    `branch` is 0 in the prompt, -1 in padding, k in the k-th chain; `previous` is the index of the token before, which
    for a chain's first token is the prompt's last; `step` numbers the finished steps of all chains of the batch, -1
    elsewhere; `verdict` is the class of the step that ends at a token, -1 elsewhere.
    """

    tokens: Tensor
    positions: Tensor
    branch: Tensor
    previous: Tensor
    step: Tensor
    verdict: Tensor

    def attend(self) -> _Branches:
        return _Branches(self.branch)


class _Branches:
    """Causal attention in which a chain sees its prompt and itself."""

    def __init__(self, branch: Tensor) -> None:
        key, query = branch[:, None, :], branch[:, :, None]
        time = torch.arange(branch.shape[1])
        causal = time[:, None] >= time[None, :]
        self.visible = (causal & ((key == query) | (key == 0)))[:, None]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.visible, enable_gqa=q.shape[1] != k.shape[1])


def plant(groups: list[Labelled], alphabet: Alphabet, multiple: int = 16) -> Grove:
    """The groups as one batch, a row each, right-padded to a multiple; chains must end where a step does."""
    rows, steps = [], 0
    for group in groups:
        tokens = alphabet.encode(group.prompt)
        head = len(tokens)
        columns = [tokens, list(range(head)), [0] * head, [0, *range(head - 1)], [-1] * head, [-1] * head]
        for k, (chain, labels) in enumerate(zip(group.chains, group.verdicts, strict=True), 1):
            body, stop, _ = chain.partition(CHAIN_END)
            columns[1] += range(head, head + len(body + stop))
            columns[2] += [k] * len(body + stop)
            columns[3] += [head - 1, *range(len(columns[0]), len(columns[0]) + len(body + stop) - 1)]
            columns[0] += alphabet.encode(body + stop)
            coming = iter(labels)
            for c in body + stop:
                ends = c in (STEP_END, CHAIN_END)
                columns[4].append(steps)
                columns[5].append(int(next(coming)) if ends else -1)
                steps += ends
        rows.append(columns)
    width = -(-max(len(r[0]) for r in rows) // multiple) * multiple
    empty = (0, 0, -1, 0, -1, -1)
    return Grove(*(torch.tensor([r[i] + [e] * (width - len(r[i])) for r in rows]) for i, e in enumerate(empty)))
