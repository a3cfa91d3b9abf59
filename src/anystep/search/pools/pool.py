"""One recorded pool: the samples of one model on one prompt, as populations, sub-pools, and a process to replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.ledger import FREE, Cost
from anystep.population import Population
from anystep.process import Floats, Process, Status
from anystep.search.pools.bill import Bill
from anystep.search.pools.block import Block
from anystep.search.pools.record import roots, stepped
from anystep.search.pools.replay import Marks, Replayed, ReplayedPotential, ReplayedReward, Samples


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples of `model` on `item`, drawn as a run of `seed` draws them; row i is its i-th start.

    Rows nest: `pool.first(m)` is the pool of m. Reading, deciding and replaying need no model.
    """

    model: str
    item: str
    settings: str
    seed: int
    about: Mapping[str, Any] = field(repr=False)
    bill: Bill = field(repr=False)
    data: Block = field(repr=False)
    marks: Mapping[str, Marks] = field(repr=False)
    load: Callable[[Process], Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def texts(self) -> tuple[str, ...]:
        return self.data.texts

    @property
    def rewards(self) -> tuple[str, ...]:
        """Labels of the rewards that are recorded for every row."""
        return tuple(label for label, marks in self.marks.items() if len(marks.values) >= len(self))

    def first(self, n: int) -> Pool:
        """The pool of the first n samples. UsageError where fewer are recorded."""
        if not 1 <= n <= len(self):
            raise UsageError(
                f"pool.first({n}): {len(self)} samples of {self.item or self.model!r} are recorded; "
                f"pools.record(process, n={n}, ...) adds more."
            )
        return replace(self, data=self.data.first(n))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens that each sample generated, (n,)."""
        return np.array([cost.generated for cost in self.costs], np.int64)

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        """What each sample paid, without what they share and without rewards."""
        data, each = self.data, self.bill.each
        common = list(accumulate(each, initial=FREE))
        paid = [
            sum(data.own[row], FREE) if row in data.own else common[k] for row, k in enumerate(data.payments.tolist())
        ]
        return tuple(paid) if data.begun is None else tuple(a + b for a, b in zip(paid, data.begun, strict=True))

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens that each sample paid, prompt included where each pays its own; what they share is `shared`."""
        return np.array([cost.tokens for cost in self.costs], np.int64)

    @property
    def shared(self) -> Cost:
        """What samples of one run share, such as the prompt: paid once, however many they are."""
        return self.bill.shared + self.bill.together

    def cost(self, rows: int | ArrayLike | None = None, rewards: tuple[str, ...] = ()) -> Cost:
        """What a run of these rows would have paid, prompt and rewards' readings included, but for the number of calls.

        rows: the first so many, or indices; all by default. rewards: labels; see `ReplayedReward` for what they cost.
        """
        chosen = self.rows(rows)
        paid = sum((self.costs[row] for row in chosen.tolist()), self.shared)
        for label in rewards:
            marks = self._marks(label)
            each, once = marks.paid(chosen[marks.rank[chosen] >= 0])
            paid = sum(each, paid + once)
        return paid

    def rows(self, rows: int | ArrayLike | None = None) -> NDArray[np.int64]:
        """Indices of rows: all, the first so many, or those given. UsageError for rows that are not recorded."""
        if rows is None:
            return np.arange(len(self))
        if isinstance(rows, (int, np.integer)):
            return np.arange(len(self.first(int(rows))))
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise UsageError(f"rows {index.min()}..{index.max()} of a pool of {len(self)}: rows begin at 0.")
        return np.asarray(index)

    def population(self, rows: int | ArrayLike | None = None, scores: str | None = None) -> Population:
        """The samples as a population with their answers and texts, for any decision; with a reward's values as scores.

        It is the final population of a run of `search.sample(n)`: keys, statuses, log-probabilities. Its states are for
        `pool.process()`. Take sub-pools with `population.take(rows)`.
        """
        index, data = self.rows(rows), self.data
        n = len(index)
        marked = np.full(n, np.nan) if scores is None else self.scores(scores)[index]
        return Population(
            states=Samples(index, data.payments[index]),
            key=self._keys[index],
            id=index,
            status=data.status[index],
            cut=np.zeros(n, bool),
            logp=data.logp[index],
            logw=data.logw[index],
            weights=np.full(n, 1 / max(n, 1)),
            scores=marked,
            answers=tuple(data.answers[row] for row in index.tolist()),
            texts=tuple(data.texts[row] for row in index.tolist()),
        )

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        keys = roots(self.seed, 0, len(self))
        return np.where(self.data.born == Status.LIVE, stepped(keys, self.model), keys)

    def scores(self, label: str) -> Floats:
        """A reward's values, (n,), NaN of failed samples."""
        return self._marks(label).values[: len(self)]

    def _marks(self, label: str) -> Marks:
        found = self.marks.get(label)
        if found is None or len(found.values) < len(self):
            told = ", ".join(self.rewards) or "none"
            raise UsageError(
                f"no reward {label!r} of all {len(self)} samples of {self.item or self.model!r} (recorded: {told}): "
                f"pools.record(process, n={len(self)}, seed={self.seed}, item={self.item!r}, "
                f"rewards={{{label!r}: reward}})."
            )
        return found

    def process(self, rows: int | ArrayLike | None = None, resampled: bool = False) -> Replayed:
        """The samples as a process, for `Run(pool.process(), method, budget, seed=pool.seed)`; see `Replayed`."""
        return Replayed(self, None if rows is None else self.rows(rows), resampled)

    def reward(self, label: str) -> ReplayedReward:
        """A recorded reward, for a method on `pool.process()`; see `ReplayedReward`."""
        marks = self._marks(label)
        kind = ReplayedPotential if marks.about["potential"] else ReplayedReward
        low, high = (float(x) for x in marks.about["range"])
        of = f"{self.model}, {self.item!r}, {self.settings}, {self.seed}"
        return kind(label, of, marks, self.data.payments, name=marks.about["name"], range=(low, high))

    def subsets(self, n: int, times: int, seed: int = 0) -> NDArray[np.int64]:
        """`times` sub-pools of n rows, drawn without replacement: (times, n) indices, in random order.

        For a decision's mean over sub-pools: what it does with n samples, at a variance far below that of the first n.
        """
        if not 1 <= n <= len(self):
            self.first(n)
        keys = lineage.roots(seed, (2,), np.arange(times))
        drawn = lineage.uniforms(keys[:, None], np.arange(len(self))[None, :])
        picked = (
            np.argpartition(drawn, n - 1, axis=1)[:, :n] if n < len(self) else np.broadcast_to(np.arange(n), (times, n))
        )
        order = np.argsort(np.take_along_axis(drawn, picked, 1), axis=1)
        return np.asarray(np.take_along_axis(picked, order, 1))

    def states(self, process: Process) -> Any:
        """The samples' states as the recorded process has them, (n,), to be read or scored by hand."""
        return self.load(process).take(np.arange(len(self)))
