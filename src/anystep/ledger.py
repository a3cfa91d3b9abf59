"""What may be spent and what was: costs, budgets, and the limit that every step and score must ask before it works."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work costs. Costs add; `tokens` is what a token budget counts.

    prompt: tokens read by a prefill that had to be computed (refills after eviction too). cached: prompt tokens found
    in a cache: shown, and free. generated: tokens sampled. attended: key positions looked at, summed over queries.
    evaluations: network evaluations (token positions or denoiser rows). flops. calls: batched calls of a model or
    requests to an endpoint. seconds: wall clock. money: in the currency of the price list. estimated: some figure is
    not exact.
    """

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    attended: int = 0
    evaluations: int = 0
    flops: float = 0.0
    calls: int = 0
    seconds: float = 0.0
    money: float = 0.0
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """Prompt plus generated tokens."""
        return self.prompt + self.generated

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.generated + other.generated,
            self.attended + other.attended,
            self.evaluations + other.evaluations,
            self.flops + other.flops,
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.money + other.money,
            self.estimated or other.estimated,
        )

    def __mul__(self, times: int) -> Cost:
        return Cost(
            self.prompt * times,
            self.cached * times,
            self.generated * times,
            self.attended * times,
            self.evaluations * times,
            self.flops * times,
            self.calls * times,
            self.seconds * times,
            self.money * times,
            self.estimated,
        )

    def same(self, other: Cost) -> bool:
        """Equal in everything that is counted: seconds are measured and left out, sums of floats agree to rounding."""
        near = np.allclose([self.flops, self.money], [other.flops, other.money], rtol=1e-9)
        return near and replace(self, seconds=0, flops=0, money=0) == replace(other, seconds=0, flops=0, money=0)


FREE = Cost()


@dataclass(frozen=True)
class Budget:
    """What a run may spend; None is unlimited. `Budget(tokens=4_000, seconds=20)`.

    tokens counts prompt plus generated, over the model and every model that scores or edits for it. Raises UsageError
    for a zero, negative or non-numeric figure.
    """

    tokens: int | None = None
    generated: int | None = None
    evaluations: int | None = None
    flops: float | None = None
    calls: int | None = None
    seconds: float | None = None
    money: float | None = None

    def __post_init__(self) -> None:
        for name, cap in self.caps().items():
            if cap == math.inf:
                raise UsageError(f"Budget({name}=inf) limits nothing; leave {name} out for no limit.")
            if isinstance(cap, bool) or not isinstance(cap, (int, float)) or not cap > 0:
                raise UsageError(
                    f"Budget({name}={cap!r}) buys nothing; give a positive number, or leave {name} out for no limit."
                )

    def caps(self) -> dict[str, float]:
        """The figures that are limited."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def exceeded(self, cost: Cost, share: float = 1.0) -> str | None:
        """The first figure of `cost` that is over `share` of its cap, or None."""
        return next((name for name, cap in self.caps().items() if getattr(cost, name) > cap * share), None)


@dataclass
class Ledger:
    """One run's account: every payment, by whom, and why it was first refused.

    A share `reserve` of the budget is held back until `release()`, so that a run cut off in the middle can still finish
    and score one state. `refused` is None, "cancelled", or the name of the figure that ran out.
    """

    budget: Budget = field(default_factory=Budget)
    reserve: float = 0.1
    clock: Callable[[], float] = time.perf_counter
    show: Callable[[int, Any], None] = lambda key, piece: None
    by: dict[str, Cost] = field(default_factory=dict)
    refused: str | None = None
    cancelled: bool = False  # apart from `refused`, which a payment under way may be about to write
    _total: Cost = FREE
    _began: float | None = None
    _ended: float | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @property
    def spent(self) -> Cost:
        """All that was paid so far, with the wall clock since the first request."""
        return replace(self._total, seconds=self.elapsed())

    def elapsed(self) -> float:
        if self._began is None:
            return 0.0
        return (self.clock() if self._ended is None else self._ended) - self._began

    def begin(self) -> None:
        self._began = self.clock() if self._began is None else self._began

    def resume(self, seconds: float) -> None:
        """Count on from so many seconds, spent in an earlier life of the run."""
        self._began = self.clock() - seconds

    def restore(self, by: Mapping[str, Cost]) -> None:
        """Take over the accounts of an earlier life of the run."""
        with self._lock:
            self.by, self._total = dict(by), sum(by.values(), FREE)

    def end(self) -> None:
        self._ended = self.clock() if self._ended is None else self._ended

    def release(self) -> None:
        """Free the reserve: from here on the whole budget may be spent."""
        self.reserve = 0.0

    def reopen(self) -> None:
        """Forget a refusal, so that closing work can be paid from the reserve; a cancelled run stays cancelled."""
        self.refused = "cancelled" if self.cancelled or self.refused == "cancelled" else None

    def cancel(self) -> None:
        """Refuse every payment from now on: safe from another thread, and from a signal handler inside a payment."""
        self.cancelled = True
        self.refused = "cancelled"

    def pay(self, cost: Cost, purpose: str) -> bool:
        """Charge `cost` if it fits, else note why not and charge nothing."""
        with self._lock:  # an async driver performs the calls of one round in several threads
            if self.cancelled:
                self.refused = "cancelled"
            elif self.refused is None:
                self.refused = self.budget.exceeded(self.spent + cost, 1.0 - self.reserve)
            if self.refused is not None:
                return False
            self.charge(cost, purpose)
            return True

    def charge(self, cost: Cost, purpose: str) -> None:
        """Charge what is already spent, whether or not it fits: a cost known only afterwards, as on an endpoint."""
        with self._lock:
            self._total += cost
            self.by[purpose] = self.by.get(purpose, FREE) + cost


class Limit:
    """Handed to every step and score: the one thing it must ask before each unit of work.

    A process with n states prices its next unit of work row by row and goes on with the rows that were paid for:

        rows = rows[limit.pay(rows, each=Cost(generated=1, evaluations=1), once=Cost(calls=1))]

    `used` is what this call paid; the cost it declares in its reply must be the same.
    """

    def __init__(self, ledger: Ledger, purpose: str) -> None:
        self.ledger, self.purpose, self._used = ledger, purpose, FREE

    @property
    def used(self) -> Cost:
        return self._used

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        """Which of `rows` may go on, at `each` (one cost, or one a row) and `once` for the whole batch.

        Rows of one run are paid for together or not at all. No rows cost nothing.
        """
        if len(rows) == 0:
            return np.zeros(0, dtype=bool)
        total = once + (each * len(rows) if isinstance(each, Cost) else sum(each, FREE))
        paid = self.ledger.pay(total, self.purpose)
        if paid:
            self._used += total
        return np.full(len(rows), paid)

    def charge(self, cost: Cost, row: int | None = None) -> None:
        """Account for work whose price was only known afterwards, or correct a payment that was an estimate.

        row: whose it is, by its place in the call's batch; needed where the call may be merged with others.
        """
        self.ledger.charge(cost, self.purpose)
        self._used += cost

    def of(self, rows: Rows | Sequence[int]) -> Limit:
        """This limit for a smaller batch made of these rows of the present one, as a wrapping process hands on."""
        return self

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        """Stream a piece of a state's output to whoever watches; procedures never see it.

        row: its place in the call's batch, which says whose it is where merged runs have equal keys (one seed).
        """
        self.ledger.show(key, piece)


class JointLimit(Limit):
    """The limit of a call that serves several owners at once: each row is paid for by the run it belongs to."""

    def __init__(self, limits: Sequence[Limit], sizes: Sequence[int], keys: Sequence[NDArray[np.uint64]] = ()) -> None:
        """keys: those of each limit's rows, for a piece that is shown without its row."""
        self.limits, self.owner = tuple(limits), np.repeat(np.arange(len(limits)), sizes)
        self.watching: dict[int, list[Limit]] = {}
        for limit, own in zip(self.limits, keys, strict=False):
            for key in own.tolist():
                self.watching.setdefault(key, []).append(limit)

    def of(self, rows: Rows | Sequence[int]) -> JointLimit:
        part = JointLimit(self.limits, [0] * len(self.limits))
        part.owner, part.watching = self.owner[np.asarray(rows, dtype=np.int64)], self.watching
        return part

    @property
    def used(self) -> Cost:
        return sum((limit.used for limit in self.limits), FREE)

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        prices = [each] * len(rows) if isinstance(each, Cost) else each
        owners = self.owner[np.asarray(rows, dtype=np.int64)]
        due: dict[int, Cost] = {}
        for owner, price in zip(owners.tolist(), prices, strict=True):
            due[owner] = due.get(owner, FREE) + price
        accounts: dict[int, list[int]] = {}
        for owner in due:
            accounts.setdefault(id(self.limits[owner].ledger), []).append(owner)
        paid: set[int] = set()
        for members in accounts.values():  # calls of one run share an account, and its batch is charged once
            due[members[0]] += once
            first = self.limits[members[0]]
            if first.ledger.pay(sum((due[i] for i in members), FREE), first.purpose):
                paid.update(members)
        for owner in paid:
            self.limits[owner]._used += due[owner]
        return np.array([owner in paid for owner in owners.tolist()], dtype=bool)

    def charge(self, cost: Cost, row: int | None = None) -> None:
        if row is None:
            raise TypeError("A merged call is paid for row by row: call charge(cost, row) or pay(rows, each=...).")
        self.limits[self.owner[row]].charge(cost)

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        for limit in self.watching.get(key, ()) if row is None else (self.limits[self.owner[row]],):
            limit.show(key, piece)
