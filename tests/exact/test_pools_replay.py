"""A replay is the live run: its answers, its population and its bill, without the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Process, Run, drive, search, verify
from anystep.answer import Answer
from anystep.errors import Unsupported, UsageError
from anystep.keys import roots
from anystep.language import load
from anystep.population import Population
from anystep.procedure import Exploring, Method, procedure, start, step
from anystep.process import reward
from anystep.search.pools import Pools
from anystep.solve import process_for
from anystep.tasks.chains import chains
from anystep.testing import assert_law, check_reward, counted, merged, process_checks, some_keys
from anystep.testing.checks_process import ProcessCheck
from anystep.testing.limits import unlimited
from anystep.testing.oracles import EnumerableLM, FaultyLM, HiddenMarkov, JudgePotential, JudgeReward, LinearGaussian

ORACLES: dict[str, Process] = {
    "tokens": EnumerableLM(length=5),
    "steps of two tokens": EnumerableLM(length=5, width=2),
    "hidden markov": HiddenMarkov(steps=3),
    "linear gaussian": LinearGaussian(steps=3),
    "faulty": FaultyLM(share=0.2, length=4),
}
SEED = 3


def size(states: Any) -> Any:
    inner = getattr(states, "states", states)
    return np.asarray((inner.size if hasattr(inner, "size") else inner.t) / 10)


LONG = JudgeReward(size, "long")
HOPE = JudgePotential(size, "hope")


@procedure(decide=search.majority)
def in_rounds(n: int, rounds: int = 3) -> Exploring:
    """n samples at a time, as adaptive self-consistency draws them."""
    found: list[Population] = []
    for _ in range(rounds):
        begun = yield from start(n)
        found.append((yield from step(begun, until="done")))
    return found[0].join(*found[1:])


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    with Pools(tmp_path / "x.pools.db") as opened:
        yield opened


def answered(process: Process, method: Method, budget: Budget | None = None, seed: int = SEED) -> Answer:
    process.forget()
    for by in method.rewards():
        by.source().forget()
    return drive(Run(process, method, budget, seed))[0]


def same(live: Answer, replayed: Answer) -> None:
    """Equal in what they say, in their books, and in every figure of their bill but the clock's."""
    assert (live.value, live.text, live.row, live.support) == (
        replayed.value,
        replayed.text,
        replayed.row,
        replayed.support,
    )
    assert (live.finished, live.failed, live.stopped_because) == (
        replayed.finished,
        replayed.failed,
        replayed.stopped_because,
    )
    assert sorted(live.errors) == sorted(replayed.errors)
    assert live.cost.same(replayed.cost), (live.cost, replayed.cost)
    assert live.population is not None and replayed.population is not None
    done = ~live.population.live
    for book in ("key", "status", "cut"):
        assert getattr(live.population, book).tolist() == getattr(replayed.population, book).tolist(), book
    for book in ("logp", "logw", "scores"):
        ours, theirs = (getattr(a.population, book)[done] for a in (live, replayed))
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-4, equal_nan=True), book  # batches round logits apart


@pytest.mark.parametrize("name", ORACLES)
def test_a_replay_is_the_live_run(name: str, pools: Pools) -> None:
    process = ORACLES[name]
    pool = pools.record(process, 60, SEED, item=name, rewards=(LONG, HOPE), rows=16)
    for n in (1, 2, 7, 60):
        for method in (search.sample(n), search.self_consistency(n), search.first_finish(n, k=min(n, 3))):
            same(answered(process, method), answered(pool.process(), method))
        best = answered(process, search.best_of_n(n, LONG))
        same(best, answered(pool.process(), search.best_of_n(n, pool.reward("long"))))
        same(
            answered(process, search.best_of_n(n, HOPE)),
            answered(pool.process(), search.best_of_n(n, pool.reward("hope"))),
        )
    same(answered(process, in_rounds(n=5)), answered(pool.process(), in_rounds(n=5)))


@pytest.mark.parametrize("budget", [Budget(generated=30), Budget(evaluations=55), Budget(calls=4), Budget(tokens=12)])
def test_a_budget_stops_a_replay_where_it_stops_the_run(budget: Budget, pools: Pools) -> None:
    process = EnumerableLM(length=5)
    pool = pools.record(process, 40, SEED, item="a")
    for n in (1, 4, 12, 40):
        live, replayed = (answered(p, search.self_consistency(n), budget) for p in (process, pool.process()))
        assert (live.finished, live.stopped_because) == (replayed.finished, replayed.stopped_because)
        if live.stopped_because == "finished" or live.finished > 1:
            same(live, replayed)


def test_the_population_is_that_of_the_run_and_nests(pools: Pools) -> None:
    process = FaultyLM(share=0.2, length=4)
    pool = pools.record(process, 30, SEED, item="a", rows=7)
    live = answered(process, search.sample(30)).population
    assert live is not None
    found = pool.population()
    for book in ("key", "status", "logp", "logw"):
        assert np.array_equal(getattr(live, book), getattr(found, book)), book
    assert found.answers == live.answers == process.answers(pool.states(process))
    for n in (1, 12, 30):
        few = pool.first(n)
        assert len(few) == n and few.population().answers == found.take(np.arange(n)).answers
        assert search.majority(few.population()) == search.majority(pool.population(n))
        assert few.cost() == pool.cost(n)
    assert replace(answered(process, search.sample(12)).cost, calls=0, seconds=0) == replace(pool.cost(12), calls=0)


def test_resampled_draws_follow_the_pool_for_every_seed(pools: Pools) -> None:
    pool = pools.record(EnumerableLM(vocab=2, length=2), 24, SEED, item="a")
    process = pool.process(resampled=True)
    law = {a: pool.data.answers.count(a) / 24 for a in set(pool.data.answers)}
    runs = merged(lambda seed: Run(process, search.sample(2), seed=seed), range(3000))
    assert_law([a for run in runs for a in run.answer.population.answers], law)
    both = drive(Run(process, search.together(search.sample(2), search.sample(3)), seed=1))[0]
    assert both.finished == 5


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [n for n in ORACLES if n != "faulty"])
def test_a_resampled_pool_keeps_the_laws_of_a_process(name: str, check: ProcessCheck, pools: Pools) -> None:
    pool = pools.record(ORACLES[name], 20, SEED, item=name)
    process = pool.process(resampled=True)
    check(process, lambda: counted(process))


def test_a_recorded_reward_keeps_the_laws_of_a_reward(pools: Pools) -> None:
    for by in (LONG, HOPE, reward(lambda states: size(states), "free")):
        pool = pools.record(EnumerableLM(length=5), 12, SEED, item=by.name, rewards={"r": by})
        recorded = pool.reward("r")
        check_reward(recorded, pool.population().states, None if by.name == "free" else partial(counted, recorded))
        assert recorded == pool.reward("r") and recorded.range == by.range and recorded.name == by.name


def test_what_was_not_recorded_is_refused(pools: Pools) -> None:
    process = EnumerableLM(length=5)
    pool = pools.record(process, 8, SEED, item="a", rewards=(LONG,))
    with pytest.raises(
        UsageError, match=r"8 samples and 20 are asked for: pools.record\(process, n=20, seed=3, item='a'\)"
    ):
        answered(pool.process(), search.sample(20))
    with pytest.raises(UsageError, match="replay with the pool's seed"):
        answered(pool.process(), search.sample(4), seed=SEED + 1)
    for method in (search.beam(2, pool.reward("long")), search.particle_filter(4), search.mcts(pool.reward("long"))):
        with pytest.raises(Unsupported, match="a method that runs samples to their end"):
            answered(pool.process(), method)

    @procedure(decide=search.first_finished)
    def twice(n: int) -> Exploring:
        begun = yield from start(n)
        yield from step(begun, until="done")
        return (yield from step(begun, until="done"))

    with pytest.raises(Unsupported, match="one continuation of each start"):
        answered(pool.process(), twice(2))
    begun = pool.process().start(roots(SEED, (0,), np.arange(2)), unlimited()).states
    for states in (begun, process.start(some_keys(), unlimited()).states):
        with pytest.raises(UsageError, match="recorded of whole samples"):
            pool.reward("long")(states, unlimited())
    with pytest.raises(UsageError, match="no reward 'short' of all 8 samples"):
        pool.reward("short")
    with pytest.raises(UsageError, match="8 samples of 'a' are recorded"):
        pool.first(9)


def test_rows_of_a_pool_replay_in_another_order(pools: Pools) -> None:
    pool = pools.record(EnumerableLM(length=5), 20, SEED, item="a", rewards=(LONG,))
    for rows in pool.subsets(6, times=5, seed=1):
        found = answered(pool.process(rows), search.best_of_n(6, pool.reward("long")))
        assert found.population is not None and found.population.answers == pool.population(rows).answers
        assert found.cost.generated == pool.lengths[rows].sum()
        assert found.population.scores.tolist() == pool.scores("long")[rows].tolist()


def test_subsets_are_drawn_without_replacement_each_row_as_often(pools: Pools) -> None:
    pool = pools.record(EnumerableLM(length=3), 10, SEED, item="a")
    drawn = pool.subsets(3, times=20_000, seed=5)
    assert drawn.shape == (20_000, 3) and (np.diff(np.sort(drawn, 1), axis=1) > 0).all()
    for place in range(3):  # in random order too
        share = np.bincount(drawn[:, place], minlength=10) / len(drawn)
        assert (np.abs(share - 0.1) < 5 * np.sqrt(0.09 / len(drawn))).all()
    assert np.array_equal(drawn, pool.subsets(3, times=20_000, seed=5))
    assert sorted(pool.subsets(10, 1)[0].tolist()) == list(range(10))


def test_chainlm_replays_exactly_with_its_prompt_paid_once(pools: Pools) -> None:
    """One prompt for all samples, a learned reward that reads common beginnings once, a budget that runs out."""
    engine, by = load("chainlm-2m"), verify.chain_steps()
    task = next(t for t in chains(20, "dev", 0) if t.family == "P")
    process = process_for(task, engine, temperature=1.0)
    pools.record(process, 40, SEED, item=task.id, rows=32)
    pool = pools.record(process, 96, SEED, item=task.id, rewards={"step": by, "steps": verify.steps(end=".")}, rows=32)
    assert pool.shared.prompt == len(process.prompt)
    for n in (1, 2, 16, 64, 96):
        same(answered(process, search.self_consistency(n)), answered(pool.process(), search.self_consistency(n)))
    for n in (1, 2, 8, 64):
        live = answered(process, search.best_of_n(n, by))
        same(live, answered(pool.process(), search.best_of_n(n, pool.reward("step"))))
        assert live.cost.tokens == pool.cost(n, rewards=("step",)).tokens
    by_then = np.minimum(pool.lengths[:64], np.median(pool.lengths[:64])).sum()  # when half of them have ended
    budget = Budget(generated=int(by_then / 0.9) + 1)  # a tenth is held back
    live, replayed = (answered(p, search.self_consistency(64), budget) for p in (process, pool.process()))
    assert live.stopped_because == "generated" and 1 < live.finished < 64
    same(live, replayed)
    again = process.load(process.dump(pool.states(process)))
    assert process.answers(again) == pool.population().answers
