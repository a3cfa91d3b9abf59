"""A smaller model of the same vocabulary guesses, token by token, what the larger one will say.

Sources: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023); Chen et al.,
"Accelerating Large Language Model Decoding with Speculative Sampling" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.guesses import Growing
from anystep.language.engine.cache import common
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.trees import Tree
from anystep.language.prefill import opened
from anystep.ledger import FREE, Cost, Limit, Mask, Rows


@dataclass(frozen=True)
class DraftModel(Drafter):
    """`engine` says what it would say next, one pass a token; at each token it names its `width` likeliest, and goes on
    from the first.

    Under `Follow` it draws as the target draws, from the same uniform, so two models that agree guess the same token at
    any temperature; under `Reject` it draws `width` without replacement, and says from what. Its passes are charged:
    evaluations, attended positions, FLOPs and calls; it reads no prompt and generates no token of its own account, so
    that a token budget buys the same text with it as without.

    level: what one of its passes takes, in passes of the target over one position; by default their ratio of FLOPs, too
    little for models so small that overhead rules. Pays where it is several times smaller and mostly agrees.
    Raises UsageError for a model of another vocabulary.
    """

    engine: Engine
    width: int = 1
    level: float | None = None
    name = "draft-model"

    def __post_init__(self) -> None:
        if self.width < 1 or (self.level is not None and not self.level >= 0):
            raise UsageError(f"DraftModel(engine, width={self.width!r}, level={self.level!r}): 1 or more, 0 or more.")

    def __repr__(self) -> str:
        return f"DraftModel({self.engine.name}, width={self.width}, level={self.level})"

    def begin(self, job: Job) -> Drafting:
        target = job.process.engine
        same = self.engine.config.vocab == target.config.vocab and all(
            self.engine.tokenizer.spelled(token) == target.tokenizer.spelled(token)
            for token in range(0, target.config.vocab, max(1, target.config.vocab // 64))
        )
        if not same:
            raise UsageError(
                f"{self.engine.name} has another vocabulary than {target.name}: DraftModel(engine) takes a smaller "
                "model of the same tokenizer."
            )
        return Guessing(self, job)

    def forget(self) -> None:
        with self.engine.lock:
            self.engine.cache.trim(0)


class Guessing(Drafting):
    """One call's rows in the drafter's own session, opened when the first guess is wanted."""

    def __init__(self, drafter: DraftModel, job: Job) -> None:
        self.drafter, self.job, self.engine = drafter, job, drafter.engine
        target = job.process.engine
        ratio = self.engine.flops(1, 1, heads=1) / target.flops(1, 1, heads=1)
        self.level = ratio if drafter.level is None else drafter.level
        self.sessions: dict[int, tuple[Decoding, int]] = {}  # of each row, and its place there

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        with self.engine.lock:
            context = self.engine.config.context
            wants = {row: want for row, want in wants.items() if len(self.job.tokens[row]) + want.depth <= context}
            self._open([row for row in wants if row not in self.sessions])
            growing = {row: Growing(self.job.tokens[row], want) for row, want in wants.items() if row in self.sessions}
            rows = self._fed({row: self._missing(row) for row in growing})
            while rows:
                logits = self._logits(rows)
                for row, each in zip(rows, logits, strict=True):
                    growing[row].guess(each, self.job, row, self.drafter.width)
                rows = self._fed({row: (growing[row].path[-1],) for row in rows if growing[row].more})
            return {row: g.draft(self.job) for row, g in growing.items()}

    def _open(self, rows: list[int]) -> None:
        """A session for rows that have none, and could pay for what of them is not cached."""
        if rows:
            fed = [self.job.tokens[row][:-1] for row in rows]
            paid, session = opened(self.engine, fed, Aside(self.job.limit), rows=np.array(rows))
            if session is not None:
                self.sessions |= {rows[i]: (session, at) for at, i in enumerate(paid.tolist())}

    def _missing(self, row: int) -> tuple[int, ...]:
        """What the row's session lacks of its tokens, after it has gone back to where they part."""
        (session, at), tokens = self.sessions[row], self.job.tokens[row]
        kept = min(common(session.tokens[at], tokens), len(tokens) - 1)
        session.rewind({at: kept})
        return tokens[kept:]

    def _fed(self, tokens: Mapping[int, Sequence[int]]) -> list[int]:
        """The rows that could pay for being fed these, and were: one pass a session."""
        found: list[int] = []
        groups: dict[int, list[int]] = {}
        for row in tokens:
            groups.setdefault(id(self.sessions[row][0]), []).append(row)
        for rows in groups.values():
            session = self.sessions[rows[0]][0]
            lengths = [len(session.tokens[self.sessions[row][1]]) for row in rows]
            each, once = self.engine.look(lengths, [Tree.chain(tokens[row]) for row in rows], heads=False)
            each = [price + Cost(flops=self.engine.flops(0, 0, heads=1)) for price in each]
            granted = self.job.limit.pay(np.array(rows), each, once=once)
            rows = [row for row, paid in zip(rows, granted.tolist(), strict=True) if paid]
            session.look({self.sessions[row][1]: Tree.chain(tokens[row]) for row in rows})
            session.keep({self.sessions[row][1]: range(len(tokens[row])) for row in rows})
            found += rows
        return found

    def _logits(self, rows: Sequence[int]) -> Tensor:
        """(rows, vocab): what follows each row's last guess."""
        return torch.cat([self.sessions[row][0].logits([self.sessions[row][1]]) for row in rows])

    def close(self) -> None:
        with self.engine.lock:
            for row in self.sessions:
                self._missing(row)
            for session in {id(session): session for session, _ in self.sessions.values()}.values():
                session.close()


class Aside(Limit):
    """A limit for another model's reading: what it costs but for prompt tokens, which are the target's to count."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        prices = [each] * len(rows) if isinstance(each, Cost) else each
        return self.limit.pay(rows, [replace(price, prompt=0, cached=0) for price in prices], once)
