"""Many pools in one file: record what is missing, find what is there."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anystep.errors import Unsupported, UsageError
from anystep.ledger import FREE, Budget, Ledger
from anystep.process import Potential, Process, Reward, Status
from anystep.search.pools.bill import Bill, cost, figures
from anystep.search.pools.block import Block, finite, joined
from anystep.search.pools.file import File, packed, unpacked
from anystep.search.pools.pool import Pool
from anystep.search.pools.record import alone, dumped, labelled, roots, sampled, scored
from anystep.search.pools.replay import Marks

FEW = (1, 2, 4, 8, 16, 32, 64)  # of so many samples, what scoring costs is measured, not added up
Rewards = Mapping[str, Reward] | Sequence[Reward] | Reward


@dataclass(frozen=True)
class About:
    """A pool of a file: where it is found, how many samples it has, and the labels of its rewards."""

    model: str
    item: str
    settings: str
    seed: int
    n: int
    rewards: tuple[str, ...]


class Pools:
    """A file of recorded pools: `with Pools("samples.pools.db") as pools`.

    A pool is what one model (its process's name) gives on one prompt (`item` and the process's settings) under one
    seed. One process may record at a time; any number may read beside it, and see what had been committed when they
    looked. Raises UsageError for a file that holds something else, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = File(path)
        self.path = self._file.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self.known())

    def known(self, item: str | None = None, model: str | None = None, seed: int | None = None) -> tuple[About, ...]:
        """The pools of the file, or those of an item, a model, a seed, in the order they were begun."""
        query = (
            "select p.model, p.item, p.settings, p.seed,"
            " (select coalesce(sum(count), 0) from blocks where pool = p.id),"
            " (select group_concat(label, char(10)) from rewards where pool = p.id) from pools p order by p.id"
        )
        found = [
            About(m, i, s, int(seed), n, tuple((r or "").split("\n")) if r else ())
            for m, i, s, seed, n, r in self._file.run(query)
        ]
        return tuple(a for a in found if item in (None, a.item) and model in (None, a.model) and seed in (None, a.seed))

    def pool(
        self, item: str | None = None, model: str | None = None, seed: int | None = None, settings: str | None = None
    ) -> Pool:
        """The one pool of this item, model, seed and settings; what is left out must not matter. UsageError where there
        is none, or more than one."""
        found = [a for a in self.known(item, model, seed) if settings in (None, a.settings)]
        if len(found) != 1:
            told = "; ".join(f"{a.item!r} of {a.model}, seed {a.seed}" for a in found[:3]) or "none"
            raise UsageError(
                f"{self.path} has {len(found)} pools of item={item!r}, model={model!r}, seed={seed!r} ({told}): say "
                "which one, or record it: pools.record(process, n=64, item=...)."
            )
        return self._read(found[0])

    def record(
        self,
        process: Process,
        n: int,
        seed: int = 0,
        item: str = "",
        rewards: Rewards = (),
        budget: Budget | None = None,
        rows: int = 256,
        say: Callable[[str], None] = lambda line: None,
    ) -> Pool:
        """The pool of n samples or more, of which only what is missing is sampled and scored, `rows` at a time.

        Row i is the i-th sample of `Run(process, search.sample(n), seed=seed)`, whatever was recorded when: pools nest,
        and a recording that was killed goes on where it was. Every block of `rows` samples, and every reward's values
        of it, is on disk once it is done; no sample is paid twice but those of a block that was under way. A reward may
        be added later, where the process can `load` its states.
        rewards: one, several (each labelled by its name), or a mapping from labels. budget: of this call; what was
        recorded when it ran out is kept. Costs are recorded as a run on an empty cache pays: before each block the
        process's cache is dropped, before scoring each reward's. At least 2 samples are recorded, so that what samples
        share can be told from what each pays.
        """
        _check(process, n, rows, item)
        named, ledger = labelled(rewards), Ledger(budget or Budget(), reserve=0.0)
        ledger.begin()
        where = (process.name, item, process.settings(), str(seed))
        with self._file.writing():
            pool, bill, have = self._begun(process, where)
            fresh: dict[int, Any] = {}
            while have < max(n, 2) and not ledger.refused:
                keys = roots(seed, have, min(rows, max(n, 2) - have))
                block, states, bill = sampled(process, keys, bill, ledger)
                if not len(block) and not ledger.refused:
                    raise Unsupported(f"{process.name} leaves samples unfinished that were paid: they cannot be kept.")
                if len(block):
                    self._keep(pool, have, block, dumped(process, states), bill)
                    fresh[have] = states
                    have += len(block)
                    say(f"{item or process.name}: {have} of {n} samples")
            for label, reward in named.items():
                self._score(pool, process, label, reward, fresh, ledger)
                self._score_alone(pool, process, label, reward, fresh, ledger)
        return self.pool(item, process.name, seed, process.settings())

    def _begun(self, process: Process, where: tuple[str, str, str, str]) -> tuple[int, Bill, int]:
        """The pool's number, its prices and how many samples it has; begun where it is new."""
        query = "select id, bill from pools where model = ? and item = ? and settings = ? and seed = ?"
        rows = self._file.run(query, where)
        if not rows:
            about = json.dumps({"logp": process.logp, "horizon": process.horizon})
            self._file.run(
                "insert into pools (model, item, settings, seed, about, bill) values (?, ?, ?, ?, ?, ?)",
                (*where, about, json.dumps(Bill().record())),
            )
            rows = self._file.run(query, where)
        pool, bill = rows[0]
        have = self._file.run("select coalesce(sum(count), 0) from blocks where pool = ?", (pool,))[0][0]
        return int(pool), Bill.read(json.loads(bill)), int(have)

    def _keep(self, pool: int, first: int, block: Block, states: bytes | None, bill: Bill) -> None:
        self._file.run(
            "insert into blocks values (?, ?, ?, ?, ?)",
            (pool, first, len(block), packed(block.record()), None if states is None else zlib.compress(states, 6)),
        )
        self._file.run("update pools set bill = ? where id = ?", (json.dumps(bill.record()), pool))
        self._file.commit()

    def _score(
        self, pool: int, process: Process, label: str, reward: Reward, fresh: Mapping[int, Any], ledger: Ledger
    ) -> None:
        """Score the blocks that this reward has not scored, in the pool's order, each beyond those before it."""
        self._same_reward(pool, label, reward)
        blocks = self._file.run("select first, count from blocks where pool = ? order by first", (pool,))
        query = "select first from values_ where pool = ? and label = ?"
        done = {first for (first,) in self._file.run(query, (pool, label))}
        lacking = [first for first, _ in blocks if first not in done]
        if not lacking or ledger.refused:
            return
        reward.forget()
        for first, _ in blocks:
            if first < lacking[0]:
                reward.warm(self._states(pool, process, first))
        for first, count in blocks:
            if first not in lacking:
                continue
            status = self._block(pool, first).status
            states = fresh[first] if first in fresh else self._states(pool, process, first)
            found = scored(reward, states, status, ledger)
            if found is None:
                return
            values, costs = found
            record = packed([[finite(x) for x in values.tolist()], [figures(c) for c in costs]])
            self._file.run("insert into values_ values (?, ?, ?, ?, ?)", (pool, label, first, count, record))
            self._file.commit()

    def _score_alone(
        self, pool: int, process: Process, label: str, reward: Reward, fresh: Mapping[int, Any], ledger: Ledger
    ) -> None:
        """Find what scoring the first few samples costs by themselves, for a batch may share less where it is small."""
        query = "select alone from rewards where pool = ? and label = ?"
        known = json.loads(self._file.run(query, (pool, label))[0][0])
        have = self._file.run("select coalesce(sum(count), 0) from blocks where pool = ?", (pool,))[0][0]
        lacking = [k for k in FEW if k <= have and str(k) not in known]
        if not lacking or ledger.refused:
            return
        query = "select record from values_ where pool = ? and label = ? order by first limit 1"
        costs = unpacked(self._file.run(query, (pool, label))[0][0], str(self.path))[1]
        free = all(c == figures(FREE) for c in costs)
        states, status = self._first(pool, process, max(lacking), fresh)
        for k in lacking:
            paid = FREE if free else alone(reward, states.take(np.arange(k)), status[:k], ledger)
            if paid is not None:
                known[str(k)] = figures(paid)
        self._file.run("update rewards set alone = ? where pool = ? and label = ?", (json.dumps(known), pool, label))
        self._file.commit()

    def _first(self, pool: int, process: Process, n: int, fresh: Mapping[int, Any]) -> tuple[Any, Any]:
        """The states and statuses of a pool's first n samples."""
        blocks = self._file.run("select first from blocks where pool = ? and first < ? order by first", (pool, n))
        parts = [fresh[first] if first in fresh else self._states(pool, process, first) for (first,) in blocks]
        status = np.concatenate([self._block(pool, first).status for (first,) in blocks])
        return parts[0].join(*parts[1:]).take(np.arange(n)), status[:n]

    def _same_reward(self, pool: int, label: str, reward: Reward) -> None:
        """Note whose values a label has; UsageError where they are another's."""
        about = json.dumps(
            {
                "name": reward.name,
                "said": repr(reward),
                "range": [str(x) for x in reward.range],
                "potential": isinstance(reward, Potential),
            }
        )
        held = self._file.run("select about from rewards where pool = ? and label = ?", (pool, label))
        if held and held[0][0] != about:
            raise UsageError(
                f"{self.path} has another reward under the label {label!r} ({json.loads(held[0][0])['said'][:80]}): "
                f"give this one its own, as in rewards={{'{label}-2': reward}}."
            )
        if not held:
            self._file.run("insert into rewards (pool, label, about) values (?, ?, ?)", (pool, label, about))

    def _states(self, pool: int, process: Process, first: int) -> Any:
        """A block's states as the process has them."""
        ((record,),) = self._file.run("select states from blocks where pool = ? and first = ?", (pool, first))
        if record is None:
            raise Unsupported(
                f"the states of {process.name} were not kept, for it cannot dump and load them: give a pool's rewards "
                "when its samples are recorded."
            )
        try:
            return process.load(zlib.decompress(record))
        except (ValueError, KeyError, zlib.error) as error:
            raise UsageError(f"{self.path} is damaged (states of {process.name}: {error}): record it anew.") from None

    def _block(self, pool: int, first: int) -> Block:
        ((record,),) = self._file.run("select record from blocks where pool = ? and first = ?", (pool, first))
        return Block.read(unpacked(record, str(self.path)))

    def _read(self, about: About) -> Pool:
        """A pool as it stands."""
        query = "select id, about, bill from pools where model = ? and item = ? and settings = ? and seed = ?"
        found = self._file.run(query, (about.model, about.item, about.settings, str(about.seed)))
        pool, facts, bill = found[0]
        firsts = [f for (f,) in self._file.run("select first from blocks where pool = ? order by first", (pool,))]
        if not firsts:
            raise UsageError(
                f"nothing of {about.item!r} was recorded: pools.record(process, n=64, item={about.item!r})."
            )
        labels = self._file.run("select label, about, alone from rewards where pool = ? order by rowid", (pool,))
        data = joined([self._block(pool, first) for first in firsts])
        marks = {label: self._marks(pool, label, data.status, *map(json.loads, told)) for label, *told in labels}

        def load(process: Process) -> Any:
            parts = [self._states(pool, process, first) for first in firsts]
            return parts[0].join(*parts[1:])

        return Pool(
            about.model,
            about.item,
            about.settings,
            about.seed,
            json.loads(facts),
            Bill.read(json.loads(bill)),
            data,
            marks,
            load,
        )

    def _marks(
        self, pool: int, label: str, status: NDArray[np.int8], about: Mapping[str, Any], few: Mapping[str, Any]
    ) -> Marks:
        query = "select record from values_ where pool = ? and label = ? order by first"
        values, costs = list[float](), list[Any]()
        for (record,) in self._file.run(query, (pool, label)):
            v, c = unpacked(record, str(self.path))
            values += [float(x) for x in v]
            costs += [cost(x) for x in c]
        scored = status[: len(values)] != Status.FAILED
        rank = np.where(scored, np.cumsum(scored) - 1, -1)
        return Marks(about, np.array(values), tuple(costs), {int(k): cost(x) for k, x in few.items()}, rank)


def _check(process: Process, n: int, rows: int, item: str) -> None:
    """UsageError for a recording that cannot be meant."""
    if not isinstance(process, Process):
        raise UsageError(f"record(process={process!r}): a Process, as in pools.record(process_for(task, model), n=64).")
    for name, value in (("n", n), ("rows", rows)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise UsageError(f"record({name}={value!r}): a whole number, 1 or more: pools.record(process, n=64).")
    if not item and not process.settings():
        raise UsageError(f"{process.name} does not say which prompt it has: pools.record(process, n={n}, item='...').")
    if process.horizon is None:
        raise Unsupported(f"{process.name} is endless: record search.truncate({process.name}, n), whose samples end.")
