"""Faults that were found once, each with the smallest case that shows it."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anystep import (
    Budget,
    Cost,
    Ledger,
    Population,
    Run,
    adrive,
    drive,
    potential,
    procedure,
    reward,
    search,
)
from anystep.answer import AllFailed
from anystep.population import Decision, Verdict
from anystep.procedure import start, step
from anystep.search import decide
from anystep.testing.oracles import Critic, EnumerableLM, FaultyLM, HiddenMarkov, Reviser

SHORT = reward(lambda states: 1 / (1 + states.size), "short")


def test_a_run_that_its_budget_stopped_replays_to_the_same_answer() -> None:
    """The journal has to say what was refused: a replay pays nothing, so it cannot find out."""
    lm = EnumerableLM(seed=5, length=7)
    for tokens in range(1, 30):
        run = Run(lm, search.best_of_n(n=4, reward=SHORT), Budget(tokens=tokens))
        (answer,) = drive(run)
        again = Run(lm, search.best_of_n(n=4, reward=SHORT), Budget(tokens=tokens))
        again.replay(run.journal)
        assert again.answer is not None
        assert (again.answer.value, again.answer.stopped_because) == (answer.value, answer.stopped_because)
        assert again.spent.same(run.spent)


def test_a_run_whose_states_all_fail_does_not_stop_the_others() -> None:
    bad, good = Run(FaultyLM(share=1), search.sample(n=2)), Run(EnumerableLM(), search.sample(n=2))
    with pytest.raises(AllFailed, match="token 0 was lost"):
        drive(bad, good)
    assert good.answer is not None and good.answer.finished == 2
    with pytest.raises(AllFailed):
        asyncio.run(adrive(Run(FaultyLM(share=1), search.sample(n=2)), Run(EnumerableLM(), search.sample(n=2))))


@pytest.mark.parametrize("method", [search.mcts(reward=SHORT), search.beam(width=3, reward=SHORT)])
def test_all_failed_raises_although_the_root_stands(method: Any) -> None:
    with pytest.raises(AllFailed):
        drive(Run(FaultyLM(share=1), method))
    with pytest.raises(AllFailed):
        drive(Run(FaultyLM(share=1), search.astar(heuristic=potential(lambda s: np.zeros(len(s)), "flat"))))


def test_payments_from_several_threads_do_not_overspend() -> None:
    """An async driver performs the calls of one round at once; between the look at the balance and the charge, another
    thread must not charge."""

    def clock() -> float:
        time.sleep(0.002)
        return 0.0

    ledger = Ledger(Budget(tokens=10), reserve=0.0, clock=clock)
    ledger.begin()
    threads = [threading.Thread(target=lambda: ledger.pay(Cost(generated=3), "x")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent.tokens == 9


def test_together_claims_no_member_s_evidence() -> None:
    hmm = HiddenMarkov()
    (answer,) = drive(Run(hmm, search.together(search.particle_filter(n=4), search.particle_filter(n=4))))
    assert answer.evidence is None


def test_a_critique_is_no_answer() -> None:
    """Stopped between critique and revision, the answer is a finished output and not the critic's note on one."""
    lm = EnumerableLM(seed=2, length=6)
    method = search.refine(n=3, critic=Critic(lm), reviser=Reviser(lm))
    (whole,) = drive(Run(lm, method))
    assert whole.cost.evaluations > 6
    for evaluations in range(1, whole.cost.evaluations):
        run = Run(lm, method, Budget(evaluations=evaluations))
        (answer,) = drive(run)
        if answer.finished:
            assert all((p.states.note == 0).all() for p in run.books.finished.values())


def test_failed_states_are_not_scored() -> None:
    seen: list[int] = []
    spy = reward(lambda states: seen.append(len(states)) or np.ones(len(states)), "spy")
    (answer,) = drive(Run(FaultyLM(share=0.2, seed=1), search.best_of_n(n=16, reward=spy)))
    assert answer.failed > 0 and sum(seen) == 16 - answer.failed


def test_children_expanded_from_cut_states_have_keys_of_their_own() -> None:
    @procedure(decide=decide.first_finished)
    def stopped_then_expanded(n: int) -> Any:
        population = yield from start(n)
        population = yield from step(population, until=1)
        return (yield from step(population, branch=3))

    (answer,) = drive(Run(EnumerableLM(seed=4, length=6, expands=True), stopped_then_expanded(5)))
    assert answer.population is not None and len(answer.population) > 5
    assert len(np.unique(answer.population.key)) == len(answer.population)


def test_a_beam_over_an_expanding_process_holds_no_state_twice() -> None:
    lm = EnumerableLM(seed=1, vocab=3, length=4, expands=True)
    likes = reward(lambda s: ((s.tokens + 1) / 5.0 ** np.arange(4)).sum(-1) / 4, "likes")
    (answer,) = drive(Run(lm, search.beam(width=4, reward=likes, branch=3)))
    assert answer.population is not None and len(answer.population) == 4
    assert len(set(answer.population.answers or ())) == 4


def test_a_particle_that_cannot_be_scored_is_left_out_and_flagged() -> None:
    some = potential(lambda s: np.where((s.tokens[:, 0] == 1), np.nan, 0.0), "some")
    (answer,) = drive(Run(EnumerableLM(length=4), search.particle_filter(n=64, potential=some)))
    assert answer.population is not None and answer.population.flagged
    ones = answer.population.states.tokens[:, 0] == 1
    assert answer.population.weights[ones].sum() == 0 and answer.population.weights.sum() == pytest.approx(1)


def test_revisions_that_all_fail_leave_what_had_finished() -> None:
    lm, lost = EnumerableLM(seed=2), FaultyLM(share=1)
    lost.numerators = lm.numerators
    runs = [Run(lm, search.refine(n=1, critic=Critic(lm), reviser=Reviser(lost)), seed=seed) for seed in range(20)]
    answers = drive(*runs)
    assert sum(a.failed for a in answers) > 5 and all(a.value in lm.outputs for a in answers)


def test_a_stopped_together_closes_its_members() -> None:
    closed = []

    @procedure(decide=decide.majority)
    def tidy() -> Any:
        try:
            population = yield from start(2)
            return (yield from step(population, until="done"))
        finally:
            closed.append(True)

    exploring = search.together(tidy(), tidy())()
    next(exploring)
    kept = exploring.gi_yieldfrom.gi_frame.f_locals["generators"]  # so that collecting it is not what closes them
    exploring.close()
    assert closed == [True, True] and len(kept) == 2


def test_a_member_s_reward_decides_when_a_stop_comes_before_it_is_asked() -> None:
    """The reserve pays for the score that the decision reads, under `together` too."""
    for method in (search.best_of_n(n=3, reward=SHORT), search.together(search.best_of_n(n=3, reward=SHORT))):
        lm = EnumerableLM()
        (whole,) = drive(Run(lm, method))
        (answer,) = drive(Run(lm, method, Budget(tokens=whole.cost.tokens - 1), reserve=0.0))
        assert answer.finished and answer.population is not None and np.isfinite(answer.population.scores).all()


@pytest.mark.parametrize("times", [0, 1, 2], ids=["an error", "a cancel", "two cancels"])
def test_async_driving_leaves_no_thread_at_work(times: int) -> None:
    """Two kinds of work in one round: one fails, or the task is cancelled, while the other still works."""
    working, begun = [], threading.Event()

    class Slow(EnumerableLM):
        def step(self, *args: Any) -> Any:
            working.append(1)
            begun.set()
            time.sleep(0.2)
            working.pop()
            return super().step(*args)

    class Broken(EnumerableLM):
        def step(self, *args: Any) -> Any:
            begun.wait()
            if times == 0:
                raise OSError("the plug fell")
            return super().step(*args)

    async def main() -> None:
        runs = [Run(p, search.sample(n=2)) for p in (Slow(), Broken())]
        task = asyncio.ensure_future(adrive(*runs))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError if times else OSError):
            await task
        assert not working

    asyncio.run(main())


def test_a_leaf_whose_children_all_fail_does_not_end_a_tree_search() -> None:
    """The root's first children stand; every later expansion is lost, and the rounds that were asked for are taken."""
    asked = []

    class Fragile(EnumerableLM):
        def step(self, states: Any, keys: Any, limit: Any, until: Any) -> Any:
            got = super().step(states, keys, limit, until)
            if until == "step":
                asked.append(1)
            lost = until == "step" and len(asked) > 1
            return replace(got, status=np.full(len(states), 2, np.int8)) if lost else got

    (answer,) = drive(Run(Fragile(length=6), search.mcts(reward=SHORT, rounds=6, branch=2)))
    assert len(asked) == 6 and answer.finished > 0


def test_joining_drops_answers_and_keeps_weights_by_member() -> None:
    (a,), (b,) = (drive(Run(EnumerableLM(), search.sample(n=n))) for n in (1, 3))
    assert isinstance(a.population, Population) and isinstance(b.population, Population)
    joined = replace(a.population, evidence=1.0).join(b.population)
    assert joined.answers is None and joined.evidence is None
    assert np.allclose(joined.weights, 0.25)


def test_a_decision_that_finds_nothing_gives_no_answer() -> None:
    nothing = Decision("nothing", lambda population: Verdict(None))
    (answer,) = drive(Run(EnumerableLM(), search.sample(n=2).deciding(nothing)))
    assert answer.value is None and answer.text is None and answer.finished == 2


def test_a_watcher_sees_the_pieces_of_its_own_run_alone() -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}
    lm = EnumerableLM()
    runs = [Run(lm, search.sample(n=3), seed=i, show=lambda key, _, i=i: seen[i].append(key)) for i in seen]  # type: ignore[misc]
    answers = drive(*runs)
    for i, answer in enumerate(answers):
        assert answer.population is not None
        assert set(seen[i]) == set(answer.population.key.tolist()) and len(seen[i]) == answer.cost.tokens


def test_merged_runs_with_one_seed_are_shown_their_own_pieces() -> None:
    """Equal seeds give equal keys, so a piece's row says whose it is."""
    seen: dict[int, list[int]] = {0: [], 1: []}
    lm = EnumerableLM()
    drive(*(Run(lm, search.sample(n=3), show=lambda key, _, i=i: seen[i].append(key)) for i in seen))  # type: ignore[misc]
    alone: list[int] = []
    drive(Run(lm, search.sample(n=3), show=lambda key, _: alone.append(key)))
    assert seen[0] == seen[1] == alone


def test_a_merged_expansion_shows_each_run_its_own_parents() -> None:
    """An expansion has several keys a row; a piece shown under any of them belongs to that row's run."""
    seen: dict[int, list[int]] = {0: [], 1: []}

    class Shows(EnumerableLM):
        def expand(self, states: Any, k: int, keys: Any, limit: Any) -> Any:
            for key in keys.tolist():
                limit.show(key, "piece")
            return super().expand(states, k, keys, limit)

    lm, likes = Shows(length=2, expands=True), reward(lambda s: s.size / 2, "long")
    runs = [
        Run(lm, search.beam(width=3, reward=likes, branch=3), seed=i, show=lambda key, _, i=i: seen[i].append(key))  # type: ignore[misc]
        for i in seen
    ]
    drive(*runs)
    alone: list[int] = []
    drive(Run(lm, runs[0].method, seed=0, show=lambda key, _: alone.append(key)))
    assert seen[0] == alone and not set(seen[0]) & set(seen[1])
