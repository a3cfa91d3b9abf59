"""Limits that hand on to another what they are asked, and change one thing about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anystep.ledger import FREE, Cost, JointLimit, Ledger, Limit, Mask, Rows


class Passing(Limit):
    """Hands everything on to `whole`; a subclass changes what it is made for."""

    def __init__(self, whole: Limit) -> None:
        self.whole = whole

    @property
    def ledger(self) -> Ledger:  # type: ignore[override]
        whole = self.whole
        return whole.limits[0].ledger if isinstance(whole, JointLimit) else whole.ledger

    @property
    def used(self) -> Cost:
        return self.whole.used

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        return self.whole.pay(rows, each, once)

    def charge(self, cost: Cost, row: int | None = None) -> None:
        self.whole.charge(cost, row)

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        self.whole.show(key, piece, row)
