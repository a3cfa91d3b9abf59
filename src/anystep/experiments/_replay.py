"""Drafters played against text that is already there: greedy text says which guesses plain decoding would accept.

A round of speculation takes the drafted path that the text follows, and the token after it. So accepted lengths are
those of real decoding, near ties apart, without a pass of the target; features are those that the text came with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from anystep.language.accelerate.drafts import Draft, Drafter, Want
from anystep.language.accelerate.verify import Verdict
from anystep.language.train.selftext import Written
from anystep.ledger import Budget, Ledger, Limit

EMPTY = Draft()


@dataclass(frozen=True)
class Played:
    """What came of one text: `rounds` (target passes), and draft tokens `accepted` in each; nodes `shown` in all."""

    accepted: tuple[int, ...]
    shown: int

    @property
    def rounds(self) -> int:
        return len(self.accepted)

    @property
    def mean(self) -> float:
        """Draft tokens accepted a target pass."""
        return float(np.mean(self.accepted))


def play(engine: Any, drafter: Drafter, text: Sequence[Written], nodes: int, depth: int) -> list[Played]:
    """Drafts for all of `text` side by side, `nodes` a round and `depth` levels, as far as whole rounds fit."""
    rows = {i: one for i, one in enumerate(text) if len(one.tokens) - one.start > depth + 2}
    tokens = {i: one.tokens[: one.start + 1] for i, one in rows.items()}
    features = {i: one.hidden.float() for i, one in rows.items()}
    session = SimpleNamespace(states=lambda i: features[i][: len(tokens[i]) - 1])
    starts, limit = [one.start for one in text], Limit(Ledger(Budget()), "replay")
    job: Any = SimpleNamespace(
        process=SimpleNamespace(engine=engine),
        session=session,
        place={i: i for i in rows},
        tokens=tokens,
        starts=starts,
        limit=limit,
        coupled=True,
    )
    drafting = drafter.begin(job)
    accepted: dict[int, list[int]] = {i: [] for i in rows}
    shown = dict.fromkeys(rows, 0)
    while going := [i for i, one in rows.items() if len(tokens[i]) + depth < len(one.tokens)]:
        drafts = drafting.draft({i: Want(nodes, depth) for i in going})
        for i in going:
            draft, one, at = drafts.get(i, EMPTY), rows[i], len(tokens[i])
            path = followed(draft, one.tokens[at : at + depth])
            last = one.tokens[at + len(path)]
            hidden = torch.zeros(1 + len(draft), features[i].shape[1])
            hidden[[0, *(node + 1 for node in path)]] = features[i][at - 1 : at + len(path)]
            tokens[i] = one.tokens[: at + len(path) + 1]
            drafting.told(i, draft, Verdict(tuple(path), last, (0.0,) * (len(path) + 1)), hidden)
            accepted[i].append(len(path))
            shown[i] += len(draft)
    drafting.close()
    return [Played(tuple(accepted[i]), shown[i]) for i in rows]


def followed(draft: Draft, tokens: Sequence[int]) -> list[int]:
    """The nodes of `draft` that `tokens` goes along."""
    path: list[int] = []
    for token in tokens:
        found = [n for n in draft.tree.children(path[-1] if path else -1) if draft.tree.tokens[n] == token]
        if not found:
            break
        path.append(found[0])
    return path
