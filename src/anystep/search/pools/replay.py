"""A pool as a process and its rewards: methods run on it at the recorded cost, without a model."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys
from anystep.ledger import FREE, Cost, Limit
from anystep.process import Floats, Potential, Process, Reward, Scored, Status, Stepped, Until
from anystep.search.pools.bill import less
from anystep.search.pools.record import roots, stepped

if TYPE_CHECKING:
    from anystep.search.pools.pool import Pool

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a pool on their way: which rows of it, and how many of their payments have been made. (n,) both."""

    row: Rows
    paid: Rows

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: NDArray[np.int64]) -> Self:
        return type(self)(self.row[index], self.paid[index])

    def join(self, *others: Samples) -> Self:
        return type(self)(*(np.concatenate([getattr(s, k) for s in (self, *others)]) for k in ("row", "paid")))


class Replayed(Process):
    """What `Pool.process` returns: the recorded samples as a process.

    A run with the pool's seed gets exactly the samples that the recorded process would have given it: a start's key
    finds its row, and a step to the end reads the row's payments one by one, so that budgets cut and races end where
    they would have. Steps smaller than a sample, further children of a state and starts that were not recorded are
    refused. rows: the i-th start of such a run is this row of the pool, in place of row i.
    resampled: a start is any of the rows, drawn with replacement by its key, so that runs of every seed replay; they
    draw from the pool's samples as if those were all there are. A step is then a whole sample.

    What samples share (the prompt) is paid by the first, once until `forget`. The log-probability of a sample counts
    when it ends. Not replayed: seconds, and in how many portions an engine would have taken more rows than its memory
    holds.
    """

    def __init__(self, pool: Pool, rows: Rows | None = None, resampled: bool = False) -> None:
        self.pool, self.resampled, self.warmed = pool, resampled, False
        self.name, self.logp, self.branches = pool.model, pool.about["logp"], not resampled
        self.horizon = 1 if resampled else pool.about["horizon"]
        self.rows = np.arange(len(pool)) if rows is None else rows
        keys = roots(pool.seed, 0, len(self.rows))
        self._starts = {key: place for place, key in enumerate(keys.tolist())}
        self._steps = stepped(keys, self.name)
        self._place = {row: place for place, row in enumerate(self.rows.tolist())}
        data, bill = pool.data, pool.bill
        self._own, self._bill = data.own, bill
        self._in_order = np.array_equal(self.rows, np.arange(len(self.rows)))
        self._common = np.array([row not in data.own for row in range(len(pool))], bool)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        row = self._started(keys)
        begun = self.pool.data.begun
        each: Sequence[Cost] | Cost = FREE if begun is None else [begun[i] for i in row.tolist()]
        if each != FREE or self._bill.start != FREE:
            limit.pay(np.arange(len(row)), each, self._bill.start)
        status = self.pool.data.born[row]
        zeros = np.zeros(len(row))
        ended = status != Status.LIVE
        logp, logw = (np.where(ended, book[row], zeros) for book in (self.pool.data.logp, self.pool.data.logw))
        return Stepped(
            Samples(row, np.zeros(len(row), np.int64)), status, logp, logw, limit.used, None, self._errors(row, ended)
        )

    def _started(self, keys: Keys) -> Rows:
        """The rows of the starts with these keys."""
        if self.resampled:
            drawn = lineage.uniforms(keys)
            return np.asarray(self.rows[(drawn * len(self.rows)).astype(np.int64)])
        places = [self._starts.get(key) for key in keys.tolist()]
        if any(place is None for place in places):
            raise self._missing(keys)
        return np.asarray(self.rows[np.array(places, np.int64)])

    def step(self, states: Samples, keys: Keys, limit: Limit, until: Until) -> Stepped:
        self._whole_samples(states, keys, until)
        data, n = self.pool.data, len(states)
        paid, status, cut = states.paid.copy(), np.zeros(n, np.int8), np.zeros(n, bool)
        rows = np.arange(n)
        while len(rows):
            free = data.payments[states.row[rows]] == 0
            granted = np.ones(len(rows), bool)
            granted[~free] = self._pay(states.row[rows[~free]], paid[rows[~free]], rows[~free], limit)
            cut[rows[~granted]] = True
            rows = rows[granted]
            paid[rows] += 1
            ended = self.forward(states.row[rows], paid[rows]) if len(rows) else np.zeros(0, bool)
            status[rows[ended]] = data.status[states.row[rows[ended]]]
            rows = rows[~ended]
            if isinstance(until, int) and (status == Status.DONE).sum() >= until:
                break
        cut |= status == Status.LIVE
        ended = status != Status.LIVE
        logp, logw = (np.where(ended, book[states.row], 0.0) for book in (data.logp, data.logw))
        errors = self._errors(states.row, ended)
        return Stepped(Samples(states.row, paid), status, logp, logw, limit.used, cut, errors)

    def forward(self, row: Rows, paid: Rows) -> NDArray[np.bool_]:
        """Which of these rows have ended with their so many-th payment: what is read in place of asking a model."""
        return np.asarray(paid >= self.pool.data.payments[row])

    def _pay(self, row: Rows, paid: Rows, places: Rows, limit: Limit) -> NDArray[np.bool_]:
        """The next payment of each row, and what the first of all pays for them all."""
        if len(row) == 0:
            return np.zeros(0, bool)
        at, alike = int(paid[0]), bool((paid == paid[0]).all() and self._common[row].all())
        each: list[Cost] | Cost
        if alike:
            each = self._bill.each[at]
        else:
            prices = zip(row.tolist(), paid.tolist(), strict=True)
            each = [(self._own.get(i) or self._bill.each)[k] for i, k in prices]
        once = self._bill.once[at] if at < len(self._bill.once) else FREE
        if self.warmed or (self._bill.shared == FREE and self._bill.together == FREE):
            return limit.pay(places, each, once)
        each = [each] * len(row) if isinstance(each, Cost) else each
        each[0] += self._bill.shared
        granted = limit.pay(places, each, once + self._bill.together)
        self.warmed = bool(granted.any())
        return granted

    def _whole_samples(self, states: Samples, keys: Keys, until: Until) -> None:
        """Unsupported for a step that was not recorded: one that is no whole sample, or another child of a state."""
        if self.resampled:
            return
        if until == "step":
            raise Unsupported(
                f"a pool of {self.name} holds whole samples, not their steps: use a method that runs samples to their "
                "end, such as sample, best_of_n, self_consistency or first_finish; or the model itself."
            )
        places = np.array([self._place[row] for row in states.row.tolist()], np.int64)
        if not np.array_equal(self._steps[places], keys):
            raise Unsupported(
                f"a pool of {self.name} holds one continuation of each start: methods that branch or resample need the "
                "model itself; on a pool use sample, best_of_n, self_consistency or first_finish."
            )

    def _missing(self, keys: Keys) -> UsageError:
        """The error for starts that were not recorded, which says what to record."""
        have, pool = len(self.rows), self.pool
        further = {key: have + i for i, key in enumerate(roots(pool.seed, have, 15 * have + 4096).tolist())}
        if all(key in further or key in self._starts for key in keys.tolist()):
            n = max(further.get(key, 0) for key in keys.tolist()) + 1
            return UsageError(
                f"the pool of {pool.item or pool.model!r} has {have} samples and {n} are asked for: "
                f"pools.record(process, n={n}, seed={pool.seed}, item={pool.item!r})."
            )
        return UsageError(
            f"these starts were not recorded: replay with the pool's seed, as in Run(pool.process(), method, "
            f"seed={pool.seed}), and without search.together; or with pool.process(resampled=True), any seed."
        )

    def _errors(self, row: Rows, ended: NDArray[np.bool_]) -> dict[int, str]:
        errors = self.pool.data.errors
        return {i: errors[r] for i, r in enumerate(row.tolist()) if ended[i] and r in errors}

    def _ended(self, states: Samples) -> list[bool]:
        return [bool(e) for e in states.paid >= self.pool.data.payments[states.row]]

    def answers(self, states: Samples) -> tuple[Hashable, ...]:
        """What each ended sample says, None of an unfinished one."""
        said, rows = self.pool.data.answers, states.row.tolist()
        return tuple(said[row] if e else None for row, e in zip(rows, self._ended(states), strict=True))

    def texts(self, states: Samples) -> tuple[str, ...]:
        """Each ended sample's text, nothing of an unfinished one."""
        texts, rows = self.pool.data.texts, states.row.tolist()
        return tuple(texts[row] if e else "" for row, e in zip(rows, self._ended(states), strict=True))

    def forget(self) -> None:
        self.warmed = False

    def warm(self, states: Samples) -> None:
        self.warmed = self.warmed or bool((states.paid > 0).any())

    def settings(self) -> str:
        how = "resampled" if self.resampled else "recorded"
        told = f"{how} {self.pool.item!r}, {len(self.rows)} rows, seed {self.pool.seed}, {self.pool.settings}"
        return told if self._in_order else f"{told}, rows {lineage.named(str(self.rows.tolist())):016x}"

    def dump(self, states: Samples) -> bytes:
        return json.dumps({"row": states.row.tolist(), "paid": states.paid.tolist()}).encode()

    def load(self, data: bytes) -> Samples:
        record = json.loads(data)
        return Samples(np.array(record["row"], np.int64), np.array(record["paid"], np.int64))


@dataclass(frozen=True)
class Marks:
    """A reward's recorded values and what each cost beyond those before it, (n,), and what the first so many cost
    together. Failed samples were not scored. rank: each row's place among those that were, -1 where it was not."""

    about: Mapping[str, Any]
    values: Floats
    costs: tuple[Cost, ...]
    few: Mapping[int, Cost]
    rank: Rows

    @cached_property
    def each(self) -> tuple[Cost, ...]:
        """The costs of the samples that were scored, by rank."""
        return tuple(self.costs[row] for row in np.flatnonzero(self.rank >= 0).tolist())

    @cached_property
    def batches(self) -> dict[int, Cost]:
        """What so many of the first samples that were scored cost together."""
        return {int((self.rank[:n] >= 0).sum()): cost for n, cost in self.few.items()}

    def paid(self, rows: Rows) -> tuple[list[Cost], Cost]:
        """What scoring these rows costs, a cost a row, the first with what its batch pays more or less than its rows
        one after the other; and the calls. Rows that come again are another run's, whose batch is its own."""
        found: list[Cost] = []
        part: list[int] = []
        seen = set[int]()
        for row in self.rank[rows].tolist():
            if row in seen:
                found += self._batch(part)
                part, seen = [], set()
            part.append(row)
            seen.add(row)
        found += self._batch(part)
        calls = max((self.batches[k].calls for k in self.batches if k <= len(part)), default=1)
        return found, Cost(calls=calls) if any(price != FREE for price in found) else FREE

    def _batch(self, rows: list[int]) -> list[Cost]:
        """What scoring these rows together costs, one by one."""
        n, first = len(rows), min(rows, default=0)
        if not n:
            return []
        in_line = sorted(rows) == list(range(first, first + n))
        each = [self.each[row] for row in (rows if in_line else range(n))]
        known = max((k for k in self.batches if 0 < k <= n), default=None)
        if all(price == FREE for price in each):
            return each
        if known is not None and not (in_line and first > 0):
            each[0] += replace(less(self.batches[known], sum(self.each[:known], FREE)), calls=0)
        return each


@dataclass(frozen=True)
class ReplayedReward(Reward):
    """What `Pool.reward` returns: a recorded reward of a pool's ended samples.

    Scoring the first n samples costs what it cost by themselves for n = 1, 2, 4, ..., 64, and for other n what was
    measured for the next smaller one and what each further sample cost beyond those before it: a reward that reads
    samples with a beginning in common shares some of the reading. Samples that go on where others ended cost what they
    cost beyond those; of others, as many as the first so many, which on average is the same.
    """

    label: str
    of: str
    marks: Marks = field(compare=False, repr=False)
    payments: Rows = field(compare=False, repr=False)
    name: str = "reward"
    range: tuple[float, float] = (0.0, 1.0)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        if not isinstance(states, Samples) or (states.paid < self.payments[states.row]).any():
            raise UsageError(
                f"{self.label} was recorded of whole samples of a pool: use it on pool.process(), in a method that "
                "scores what has finished, such as best_of_n."
            )
        (each, once), rows = self.marks.paid(states.row), np.arange(len(states))
        if once == FREE:
            return Scored(self.marks.values[states.row], limit.used)
        rows = rows[limit.pay(rows, each, once)]
        values = np.full(len(states), np.nan)
        values[rows] = self.forward(states.row[rows]) if len(rows) else np.nan
        return Scored(values, limit.used)

    def forward(self, row: Rows) -> Floats:
        """The values of these rows: what is read in place of asking a model."""
        return np.asarray(self.marks.values[row])


@dataclass(frozen=True)
class ReplayedPotential(ReplayedReward, Potential):
    """A recorded potential."""
