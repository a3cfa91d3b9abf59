"""What each sample paid, payment by payment, so that a replay can be charged, and refused, where the live run was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from anystep.ledger import FREE, Cost, Ledger, Limit, Mask, Rows

_FIGURES = tuple(f.name for f in fields(Cost) if f.name not in ("seconds", "estimated"))


@dataclass(frozen=True)
class Event:
    """One payment for some rows of a batch: a cost a row, and one for the batch. after: it corrects an earlier one."""

    rows: tuple[int, ...]
    each: tuple[Cost, ...]
    once: Cost = FREE
    after: bool = False


class Meter(Limit):
    """A limit that keeps what was paid, by whom and in which order."""

    def __init__(self, ledger: Ledger, purpose: str) -> None:
        super().__init__(ledger, purpose)
        self.events: list[Event] = []

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        granted = super().pay(rows, each, once)
        if granted.any():
            prices = (each,) * len(rows) if isinstance(each, Cost) else tuple(each)
            self.events.append(Event(tuple(np.asarray(rows).tolist()), prices, once))
        return granted

    def charge(self, cost: Cost, row: int | None = None) -> None:
        super().charge(cost, row)
        self.events.append(Event((), (), cost, after=True) if row is None else Event((row,), (cost,), after=True))

    def of(self, rows: Rows | Sequence[int]) -> Limit:
        return _Part(self, np.asarray(rows, dtype=np.int64))


class _Part(Limit):
    """A meter for some rows of its batch."""

    def __init__(self, whole: Limit, rows: Rows) -> None:
        super().__init__(whole.ledger, whole.purpose)
        self.whole, self.rows = whole, rows

    @property
    def used(self) -> Cost:
        return self.whole.used

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        return self.whole.pay(self.rows[np.asarray(rows, dtype=np.int64)], each, once)

    def charge(self, cost: Cost, row: int | None = None) -> None:
        self.whole.charge(cost, None if row is None else int(self.rows[row]))

    def of(self, rows: Rows | Sequence[int]) -> Limit:
        return _Part(self.whole, self.rows[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class Bill:
    """The prices that the samples of a pool have in common.

    each: what a sample pays at its k-th payment; a sample that paid otherwise has a list of its own. once: what a batch
    pays beside it. shared: what the first sample pays more than the others, for what it computed for them all, such as
    the prompt; together: what its batch pays more. start: what a batch pays at the start.
    """

    each: tuple[Cost, ...] = ()
    once: tuple[Cost, ...] = ()
    shared: Cost = FREE
    together: Cost = FREE
    start: Cost = FREE

    def record(self) -> dict[str, Any]:
        return {
            "each": [figures(c) for c in self.each],
            "once": [figures(c) for c in self.once],
            "shared": figures(self.shared),
            "together": figures(self.together),
            "start": figures(self.start),
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Bill:
        each, once = (tuple(cost(c) for c in record[k]) for k in ("each", "once"))
        return cls(each, once, *(cost(record[k]) for k in ("shared", "together", "start")))


@dataclass
class Paid:
    """The payments of a batch, sorted by row: `each[row]` in order, `once` beside the k-th ones, and what the batch
    paid in the name of one row alone (`together`)."""

    each: list[list[Cost]]
    once: list[Cost] = field(default_factory=list)
    together: Cost = FREE


def sorted_out(events: Sequence[Event], n: int) -> Paid:
    """The payments of a batch of n rows, by row.

    Where one row alone pays nothing of its own, as for a pass over the prompt that all share, the batch's price belongs
    to no row's step. A correction is part of the payment before it.
    """
    paid = Paid([[] for _ in range(n)])
    for event in events:
        nothing = all(price == FREE for price in event.each)
        if nothing and (len(event.rows) <= 1 or event.once == FREE):
            paid.together += event.once
            continue
        for row, price in zip(event.rows, event.each, strict=True):
            if event.after and paid.each[row]:
                paid.each[row][-1] += price
            else:
                paid.each[row].append(price)
        if not event.after:
            at = max(len(paid.each[row]) for row in event.rows) - 1
            paid.once += [FREE] * (at + 1 - len(paid.once))
            paid.once[at] = event.once
    return paid


def figures(price: Cost) -> list[float]:
    """A cost as numbers; seconds are not kept, for a replay takes its own."""
    return [*(getattr(price, name) for name in _FIGURES), int(price.estimated)]


def cost(record: Sequence[float]) -> Cost:
    return Cost(**dict(zip(_FIGURES, record, strict=False)), estimated=bool(record[-1]))  # type: ignore[arg-type]


def less(one: Cost, other: Cost) -> Cost:
    """What `one` costs beyond `other`."""
    return replace(one + other * -1, estimated=one.estimated)
