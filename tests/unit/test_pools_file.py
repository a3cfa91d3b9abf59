"""A file of pools: nothing is sampled twice, whatever happens to it, and no other file is taken for one."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Cost, UsageError
from anystep.errors import Unsupported
from anystep.ledger import Limit
from anystep.process import Reward, Scored, Stepped
from anystep.search.pools import Pools
from anystep.search.pools.block import heard, said
from anystep.search.pools.record import for_all
from anystep.testing.oracles import EnumerableLM, JudgeReward, Metropolis


class Died(Exception):
    """The process ends here."""


class Counting(EnumerableLM):
    """Counts what it samples, and dies in the call after `left`."""

    def __init__(self, left: int = 10**9, **options: Any) -> None:
        super().__init__(**options)
        self.left, self.sampled = left, 0

    def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
        if self.left == 0:
            raise Died
        self.left -= 1
        self.sampled += len(states)
        return super().step(states, keys, limit, until)


LONG = JudgeReward(lambda states: states.size / 10, "long")


def contents(pools: Pools, item: str = "a") -> tuple[Any, ...]:
    pool = pools.pool(item)
    population = pool.population()
    return population.answers, population.logp.tolist(), population.key.tolist(), pool.costs, pool.lengths.tolist()


def test_a_recording_that_dies_goes_on_where_it_was(tmp_path: Path) -> None:
    with Pools(tmp_path / "whole.db") as pools:
        pools.record(Counting(), 50, item="a", rewards=(LONG,))
        whole = contents(pools)
        scores = pools.pool("a").scores("long").tolist()
    sampled = 0
    for left in (2, 1, 0, 10**9):
        process = Counting(left)
        with Pools(tmp_path / "x.db") as pools:
            with contextlib.suppress(Died):
                pools.record(process, 50, item="a", rewards=(LONG,), rows=9)
            sampled += process.sampled
    assert sampled == 50  # what died was not paid
    with Pools(tmp_path / "x.db") as pools:
        assert contents(pools) == whole and pools.pool("a").scores("long").tolist() == scores


def test_only_what_is_missing_is_recorded_and_pools_nest(tmp_path: Path) -> None:
    process = Counting()
    with Pools(tmp_path / "x.db") as pools:
        first = pools.record(process, 10, item="a")
        more = pools.record(process, 25, item="a", rewards=(LONG,), rows=4)
        assert process.sampled == 25 and first.data.answers == more.first(10).data.answers
        assert pools.record(process, 5, item="a").data.answers == more.data.answers
        assert process.sampled == 25
        pools.record(process, 4, item="b")
        pools.record(process, 4, seed=1, item="a")
        known = {(a.item, a.seed): (a.n, a.rewards) for a in pools.known()}
        assert known == {("a", 0): (25, ("long",)), ("b", 0): (4, ()), ("a", 1): (4, ())}
        with pytest.raises(UsageError, match="has 2 pools of item='a'"):
            pools.pool("a")
        assert len(pools.pool("a", seed=1)) == 4 and len(pools.known(item="b")) == 1
        assert pools.record(process, 1, item="c").first(1).cost() == pools.record(process, 9, item="c").first(1).cost()


class Calls(Reward):
    """Counts the states that it scores."""

    name = "calls"

    def __init__(self) -> None:
        self.scored = 0

    def __repr__(self) -> str:
        return "calls"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        self.scored += len(states)
        return LONG(states, limit)


def test_a_reward_is_added_later_and_paid_once(tmp_path: Path) -> None:
    by = Calls()
    with Pools(tmp_path / "x.db") as pools:
        pools.record(EnumerableLM(), 12, item="a", rows=5)
        pool = pools.record(EnumerableLM(), 20, item="a", rows=5, rewards={"mine": by})
        few = sum(k for k in (1, 2, 4, 8, 16))  # by themselves, to know what few cost
        assert by.scored == 20 + few and pool.rewards == ("mine",)
        assert pools.record(EnumerableLM(), 20, item="a", rewards={"mine": by}).scores("mine").tolist() == [
            len(a) / 10 for a in pool.data.answers
        ]
        assert by.scored == 20 + few
        with pytest.raises(UsageError, match="another reward under the label 'mine' .* give this one its own"):
            pools.record(EnumerableLM(), 20, item="a", rewards={"mine": LONG})


def test_a_budget_ends_a_recording_and_keeps_what_it_bought(tmp_path: Path) -> None:
    with Pools(tmp_path / "x.db") as pools:
        pool = pools.record(EnumerableLM(), 200, item="a", rows=10, budget=Budget(generated=60))
        assert 10 <= len(pool) < 30 and pool.lengths.sum() <= 60
        whole = pools.record(EnumerableLM(), 40, item="a", rewards=(LONG,), budget=Budget(evaluations=4_000))
        assert len(whole) == 40 and whole.data.answers[: len(pool)] == pool.data.answers


class Unwritable(EnumerableLM):
    def dump(self, states: Any) -> bytes:
        raise Unsupported("no")


def test_states_that_cannot_be_written_are_scored_when_they_are_drawn_or_never(tmp_path: Path) -> None:
    with Pools(tmp_path / "x.db") as pools:
        pool = pools.record(Unwritable(), 12, item="a", rewards=(LONG,), rows=5)
        assert pool.scores("long").tolist() == [len(a) / 10 for a in pool.data.answers]
        pools.record(Unwritable(), 12, item="b")
        with pytest.raises(Unsupported, match="give a pool's rewards when its samples are recorded"):
            pools.record(Unwritable(), 12, item="b", rewards=(LONG,))


def test_what_is_no_file_of_pools_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("create table mine (x)")
    (tmp_path / "text.db").write_text("not a database, but long enough to be one")
    newer = tmp_path / "newer.db"
    Pools(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("pragma user_version = 9")
    broken = tmp_path / "broken.db"
    with Pools(broken) as pools:
        pools.record(EnumerableLM(), 8, item="a")
    with sqlite3.connect(broken) as db:
        db.execute("update blocks set record = ?", (zlib.compress(b"{"),))
    for name, told in (
        ("other.db", "holds no recorded pools"),
        ("text.db", "holds no recorded pools"),
        ("newer.db", "pool format 9"),
    ):
        with pytest.raises(UsageError, match=told):
            Pools(tmp_path / name)
    with Pools(broken) as pools, pytest.raises(UsageError, match="is damaged"):
        pools.pool("a")
    with pytest.raises(UsageError, match="cannot use"):
        Pools(tmp_path)


def test_one_process_records_and_others_read(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Pools(path) as pools:
        pools.record(EnumerableLM(), 8, item="a")
        other = (
            "import sys\nfrom anystep.search.pools import Pools\nfrom anystep.testing.oracles import EnumerableLM\n"
            "pools = Pools(sys.argv[1])\nprint(len(pools.pool('a')))\npools.record(EnumerableLM(), 9, item='a')\n"
        )

        class Meanwhile(EnumerableLM):
            said = ""

            def start(self, keys: Any, limit: Limit) -> Stepped:
                if not Meanwhile.said:
                    ran = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True)
                    Meanwhile.said = ran.stdout + ran.stderr
                return super().start(keys, limit)

        assert len(pools.record(Meanwhile(), 12, item="a")) == 12
        assert Meanwhile.said.startswith("8\n") and "is being written by another process" in Meanwhile.said


def test_a_recording_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with Pools(tmp_path / "x.db") as pools:
        for n in (0, -1, 2.5, True):
            with pytest.raises(UsageError, match="a whole number, 1 or more"):
                pools.record(EnumerableLM(), n, item="a")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="does not say which prompt"):
            pools.record(EnumerableLM(), 4)
        with pytest.raises(UsageError, match="a Process, as in"):
            pools.record("chainlm-2m", 4, item="a")  # type: ignore[arg-type]
        with pytest.raises(Unsupported, match="record search.truncate"):
            pools.record(Metropolis(), 4, item="a")
        with pytest.raises(UsageError, match="answer that is a frozenset cannot be kept"):
            pools.record(EnumerableLM(answer=frozenset), 4, item="a")
        with pytest.raises(UsageError, match="has 0 pools of item='z'"):
            pools.pool("z")
        pool = pools.record(EnumerableLM(), 4, item="a")
        with pytest.raises(UsageError, match="rows begin at 0"):
            pool.population([0, 4])


def test_answers_come_back_as_they_were() -> None:
    for answer in (None, "7", 7, True, 0.1, float("inf"), Fraction(1, 3), (1, ("a", None), 2.5), ()):
        back = heard(said(answer))
        assert back == answer and type(back) is type(answer)
    assert heard(said(np.int64(3))) == 3


class Unfinished(EnumerableLM):
    """Pays, and leaves every sample as it was."""

    def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
        limit.pay(np.arange(len(states)), Cost(generated=1))
        n = len(states)
        return Stepped(states, np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)


def test_samples_that_never_end_are_refused_and_not_paid_for_ever(tmp_path: Path) -> None:
    with Pools(tmp_path / "x.db") as pools, pytest.raises(Unsupported, match="leaves samples unfinished"):
        pools.record(Unfinished(), 4, item="a")


def test_a_recording_within_a_recording_is_refused(tmp_path: Path) -> None:
    with Pools(tmp_path / "x.db") as pools:

        class Within(EnumerableLM):
            def start(self, keys: Any, limit: Limit) -> Stepped:
                with pytest.raises(UsageError, match="recorded into already: open it once more"):
                    pools.record(EnumerableLM(), 4, item="b")
                return super().start(keys, limit)

        assert len(pools.record(Within(), 4, item="a")) == 4
        assert len(pools.record(EnumerableLM(), 4, item="b")) == 4


def test_rewards_that_would_share_a_label_are_refused(tmp_path: Path) -> None:
    with Pools(tmp_path / "x.db") as pools:
        for rewards in ((LONG, LONG), {"a\nb": LONG}):
            with pytest.raises(UsageError, match="give each its own, as in"):
                pools.record(EnumerableLM(), 4, item="a", rewards=rewards)
        with pytest.raises(UsageError, match="rewards, as in"):
            pools.record(EnumerableLM(), 4, item="a", rewards=[len])  # type: ignore[list-item]
        assert not pools.known()
        assert pools.record(EnumerableLM(), 4, item="a", rewards={"a": LONG, "b": LONG}).rewards == ("a", "b")


def test_what_samples_share_is_reading_and_never_tokens_of_the_first() -> None:
    first, other = Cost(prompt=30, generated=1, flops=9.0), Cost(cached=30, generated=1, flops=2.0)
    assert for_all(first, other) == Cost(prompt=30, cached=-30, flops=7.0)
    assert for_all(Cost(generated=90), Cost(generated=40)) == Cost()  # a request each, and the first was longer
    assert for_all(other, first) == Cost()
