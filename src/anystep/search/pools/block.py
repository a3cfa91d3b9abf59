"""Samples side by side, as columns: what a block of a file holds, and what a pool has in memory."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.ledger import Cost
from anystep.process import Floats, Status
from anystep.search.pools.bill import cost, figures


@dataclass(frozen=True)
class Block:
    """n samples run to their end, all (n,).

    born: the status after the start; status: at the end. payments: how many steps' payments each made; own: the
    payments of rows that did not pay the pool's common prices. begun: what starts cost, where they cost anything.
    """

    born: NDArray[np.int8]
    status: NDArray[np.int8]
    errors: Mapping[int, str]
    answers: tuple[Hashable, ...]
    texts: tuple[str, ...]
    logp: Floats
    logw: Floats
    payments: NDArray[np.int64]
    own: Mapping[int, tuple[Cost, ...]]
    begun: tuple[Cost, ...] | None = None

    def __len__(self) -> int:
        return len(self.status)

    def record(self) -> dict[str, Any]:
        return {
            "born": self.born.tolist(),
            "status": self.status.tolist(),
            "errors": {str(row): text for row, text in self.errors.items()},
            "answers": [said(a) for a in self.answers],
            "texts": list(self.texts),
            "logp": [finite(x) for x in self.logp.tolist()],
            "logw": [finite(x) for x in self.logw.tolist()],
            "payments": self.payments.tolist(),
            "own": {str(row): [figures(c) for c in costs] for row, costs in self.own.items()},
            "begun": None if self.begun is None else [figures(c) for c in self.begun],
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Block:
        return cls(
            born=np.array(record["born"], np.int8),
            status=np.array(record["status"], np.int8),
            errors={int(row): text for row, text in record["errors"].items()},
            answers=tuple(heard(a) for a in record["answers"]),
            texts=tuple(record["texts"]),
            logp=np.array([float(x) for x in record["logp"]]),
            logw=np.array([float(x) for x in record["logw"]]),
            payments=np.array(record["payments"], np.int64),
            own={int(row): tuple(cost(c) for c in costs) for row, costs in record["own"].items()},
            begun=None if record["begun"] is None else tuple(cost(c) for c in record["begun"]),
        )

    def first(self, n: int) -> Block:
        """The first n samples."""
        return Block(
            self.born[:n],
            self.status[:n],
            {row: text for row, text in self.errors.items() if row < n},
            self.answers[:n],
            self.texts[:n],
            self.logp[:n],
            self.logw[:n],
            self.payments[:n],
            {row: costs for row, costs in self.own.items() if row < n},
            None if self.begun is None else self.begun[:n],
        )


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks one after the other."""
    if not blocks:
        return Block(*_NONE)
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    begun = any(b.begun is not None for b in blocks)
    return Block(
        np.concatenate([b.born for b in blocks]),
        np.concatenate([b.status for b in blocks]),
        {at + row: text for at, b in zip(starts, blocks, strict=False) for row, text in b.errors.items()},
        tuple(a for b in blocks for a in b.answers),
        tuple(t for b in blocks for t in b.texts),
        np.concatenate([b.logp for b in blocks]),
        np.concatenate([b.logw for b in blocks]),
        np.concatenate([b.payments for b in blocks]),
        {at + row: costs for at, b in zip(starts, blocks, strict=False) for row, costs in b.own.items()},
        tuple(c for b in blocks for c in (b.begun or (Cost(),) * len(b))) if begun else None,
    )


_NONE: Any = (
    np.zeros(0, np.int8),
    np.zeros(0, np.int8),
    {},
    (),
    (),
    np.zeros(0),
    np.zeros(0),
    np.zeros(0, np.int64),
    {},
)


def whole(status: NDArray[np.int8], cut: NDArray[np.bool_] | None) -> int:
    """How many rows, from the first on, ran to their end."""
    unfinished = (status == Status.LIVE) | (np.zeros(len(status), bool) if cut is None else cut)
    return int(np.argmax(unfinished)) if unfinished.any() else len(status)


def said(answer: Hashable) -> Any:
    """An answer as JSON; `heard` is its inverse."""
    if answer is None or isinstance(answer, (bool, str, int)):
        return answer
    if isinstance(answer, float):
        return {"float": str(answer)}
    if isinstance(answer, Fraction):
        return {"fraction": str(answer)}
    if isinstance(answer, (np.integer, np.floating)):
        return said(answer.item())
    if isinstance(answer, tuple):
        return [said(part) for part in answer]
    raise UsageError(
        f"an answer that is a {type(answer).__name__} cannot be kept: give a process whose answers are texts, numbers "
        "or tuples of them, such as LanguageProcess(..., extract=lambda text: text.strip())."
    )


def heard(record: Any) -> Hashable:
    if isinstance(record, list):
        return tuple(heard(part) for part in record)
    if isinstance(record, dict):
        return float(record["float"]) if "float" in record else Fraction(record["fraction"])
    return record  # type: ignore[no-any-return]


def finite(x: float) -> Any:
    """A number that JSON has, infinities as text."""
    return x if math.isfinite(x) else str(x)
