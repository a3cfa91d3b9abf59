"""The checks catch what they are for: each broken process, procedure, reward or decision fails the check it should."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from anystep import Cost, Decision, Verdict, procedure, reward, search
from anystep import keys as lineage
from anystep.procedure import score, start, step
from anystep.process import Reward, Scored, Status
from anystep.search import decide
from anystep.stepwise import Moved
from anystep.testing import (
    assert_law,
    assert_mean,
    case,
    check_decision,
    check_prefix,
    check_process,
    check_refusal,
    check_reward,
    counted_torch,
    procedure_checks,
)
from anystep.testing.limits import unlimited
from anystep.testing.oracles import EnumerableLM, JudgeReward, Sequences


class Underdeclares(EnumerableLM):
    def step(self, states: Any, keys: Any, limit: Any, until: Any) -> Any:
        return replace(super().step(states, keys, limit, until), cost=Cost())


class WorksUnpaid(EnumerableLM):
    def advance(self, states: Sequences, keys: Any) -> Moved:
        self.forward(self.contexts(states))
        return super().advance(states, keys)


class IgnoresRefusal(EnumerableLM):
    def step(self, states: Any, keys: Any, limit: Any, until: Any) -> Any:
        whole = super().step(states, keys, unlimited(), until)
        limit.pay(range(len(states)), each=whole.cost)
        return replace(whole, cost=limit.used)


class DependsOnTheBatch(EnumerableLM):
    def advance(self, states: Sequences, keys: Any) -> Moved:
        return super().advance(states, keys + np.uint64(len(keys)))


class UsesGlobalRandomness(EnumerableLM):
    def advance(self, states: Sequences, keys: Any) -> Moved:
        np.random.rand()
        return super().advance(states, keys)


class ForgetsWhereItWas(EnumerableLM):
    """Draws at the position within the call, so that a step that was cut and goes on repeats its first draw."""

    def advance(self, states: Sequences, keys: Any) -> Moved:
        p = self.forward(self.contexts(states))
        token = lineage.choose(p, lineage.uniforms(keys, states.size % 1))
        longer = self.appended(states, token)
        self.calls_so_far = getattr(self, "calls_so_far", 0) + 1
        token = lineage.choose(p, lineage.uniforms(keys, self.calls_so_far))
        longer = self.appended(states, token)
        return Moved(longer, self.status(longer), np.log(p[np.arange(len(p)), token]), np.zeros(len(p)))


class WritesIntoItsStates(EnumerableLM):
    def advance(self, states: Sequences, keys: Any) -> Moved:
        return super().advance(states, keys)

    def step(self, states: Any, keys: Any, limit: Any, until: Any) -> Any:
        states.note[:] += 1
        return super().step(states, keys, limit, until)


class RepeatsChildren(EnumerableLM):
    def expand(self, states: Any, k: int, keys: Any, limit: Any) -> Any:
        reply = super().expand(states, k, keys, limit)
        first = np.searchsorted(reply.parent, reply.parent)
        return replace(reply, states=reply.states.take(first))


class LosesErrors(EnumerableLM):
    def advance(self, states: Sequences, keys: Any) -> Moved:
        moved = super().advance(states, keys)
        return replace(moved, status=np.full(len(keys), Status.FAILED, dtype=np.int8))


class LoadsSomethingElse(EnumerableLM):
    def load(self, data: bytes) -> Any:
        states = super().load(data)
        return replace(states, note=states.note + 1)


class IsNoMass(EnumerableLM):
    def advance(self, states: Sequences, keys: Any) -> Moved:
        moved = super().advance(states, keys)
        return replace(moved, logp=moved.logp + 3)


BROKEN = [
    (Underdeclares(length=4), "declared"),
    (WorksUnpaid(length=4), "the hook counted"),
    (IgnoresRefusal(length=4), "declared|paid|counted"),
    (DependsOnTheBatch(length=4), "alone"),
    (UsesGlobalRandomness(length=4), "global random state"),
    (ForgetsWhereItWas(length=4), "calling twice"),
    (WritesIntoItsStates(length=4), "changes"),
    (RepeatsChildren(length=4, expands=True), "expand"),
    (LosesErrors(length=4), "errors for"),
    (LoadsSomethingElse(length=4), "writing down"),
    (IsNoMass(length=4), "no log of a mass"),
]


@pytest.mark.parametrize("process,message", BROKEN, ids=[type(p).__name__ for p, _ in BROKEN])
def test_a_broken_process_is_caught(process: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_process(process)


LM = EnumerableLM(length=4)
JUDGE = JudgeReward(lambda s: s.size / 5, "judge")


def failing(method: Any, process: Any = LM) -> set[str]:
    """The names of the checks that a method fails."""
    found = set()
    for check in procedure_checks:
        try:
            check(case(method, process))
        except AssertionError:
            found.add(check.__name__)
    return found


@procedure(decide=decide.first_finished)
def remembers(n: int, log: Any) -> Any:
    log.append(1)
    population = yield from start(n + len(log) % 2)
    return (yield from step(population, until="done"))


@dataclass
class Log:
    """Something mutable that a method should not hold."""

    seen: int = 0

    def append(self, _: int) -> None:
        self.seen += 1

    def __len__(self) -> int:
        return self.seen

    def __hash__(self) -> int:
        return 0


def test_a_method_with_a_memory_is_caught() -> None:
    replays = {"a_journal_replays_without_work", "its_rounds_survive_as_text", "its_journal_survives_the_disk"}
    assert {"same_seed_same_answer", *replays} <= failing(remembers(2, Log()))


def test_states_that_a_journal_changes_are_caught() -> None:
    found = failing(search.sample(n=2), LoadsSomethingElse(length=3))
    assert found == {"its_rounds_survive_as_text", "its_journal_survives_the_disk"}


def test_a_step_that_cannot_be_taken_up_again_is_caught() -> None:
    assert "a_refused_run_goes_on" in failing(search.sample(n=2), ForgetsWhereItWas(length=4))


@dataclass(frozen=True)
class Cheat(Reward):
    """Works once more than it pays."""

    name: str = "cheat"
    range: tuple[float, float] = (0.0, 1.0)

    def forward(self, states: Any) -> Any:
        return states.size / 5

    def __call__(self, states: Any, limit: Any) -> Scored:
        self.forward(states)
        return Scored(self.forward(states), limit.used)


def test_a_reward_that_works_unpaid_is_caught_in_the_ledger() -> None:
    assert {"the_ledger_is_the_work"} <= failing(search.best_of_n(n=2, reward=Cheat()))


class PrintsAnAddress(JudgeReward):
    __repr__ = object.__repr__


def test_a_method_that_prints_an_address_is_caught() -> None:
    method = search.best_of_n(n=2, reward=PrintsAnAddress(lambda s: s.size / 5, "judge"))
    assert failing(method) == {"equal_values_print_and_compare_equal"}


def test_a_process_that_overspends_is_caught_under_budgets() -> None:
    assert "a_budget_stops_it_anywhere" in failing(search.sample(n=2), WorksUnpaid(length=3))


@procedure(decide=decide.first_finished)
def backwards(n: int) -> Any:
    population = yield from start(n)
    population = yield from step(population, until="done")
    return population.take(np.arange(n)[::-1])


def test_a_method_whose_pools_do_not_nest_is_caught() -> None:
    with pytest.raises(AssertionError, match="no prefix"):
        check_prefix(backwards, LM)


def test_a_method_that_refuses_nothing_is_caught() -> None:
    with pytest.raises(AssertionError, match="does not refuse"):
        check_refusal(search.sample(n=1), LM)


def states() -> Any:
    return LM.step(LM.begin(lineage.roots(0, (), range(5))), lineage.roots(1, (), range(5)), unlimited(), "done").states


@pytest.mark.parametrize(
    "broken,message",
    [
        (reward(lambda s: s.size, "loud"), "outside its range"),
        (reward(lambda s: np.arange(len(s)) / 9, "by row"), "order matters"),
        (Cheat(), "counted"),
        (reward(lambda s: (s.size / 5)[:, None], "of another shape"), "values"),
        (PrintsAnAddress(lambda s: s.size / 5, "judge"), "address"),
    ],
)
def test_a_broken_reward_is_caught(broken: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reward(broken, states())


@pytest.mark.parametrize(
    "function,message",
    [
        (
            lambda p: Verdict(int(np.argmax(np.nan_to_num(p.scores, nan=-9))) if len(p) else None),
            "not done|reads scores",
        ),
        (lambda p: Verdict(int(np.flatnonzero(p.done)[0])), "index 0|out of bounds"),
        (lambda p: Verdict(int(np.flatnonzero(p.done)[0]) if p.done.any() else None, 2.0), "support"),
        (lambda p: Verdict(int(np.flatnonzero(p.done)[0]) if p.done.any() else None, 0.5), "full|support"),
    ],
)
def test_a_broken_decision_is_caught(function: Any, message: str) -> None:
    with pytest.raises((AssertionError, IndexError), match=message):
        check_decision(Decision("broken", function))


def test_wrong_laws_and_means_are_caught() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="chi-square"):
        assert_law((rng.random(5000) < 0.55).tolist(), {True: 0.5, False: 0.5})
    with pytest.raises(AssertionError, match="cannot be"):
        assert_law([1, 2], {1: 1.0})
    with pytest.raises(AssertionError, match="too few"):
        assert_law([1, 2], {1: 0.5, 2: 0.5})
    with pytest.raises(AssertionError, match="z ="):
        assert_mean(rng.normal(0.1, 1, 10_000), 0.0)
    assert_mean(rng.normal(0.0, 1, 10_000), 0.0)


def test_a_torch_hook_counts_positions_and_passes() -> None:
    import torch

    model = torch.nn.Embedding(7, 3)
    with counted_torch(model) as work:
        model(torch.zeros((2, 5), dtype=torch.long))
        model(input=torch.zeros((1, 4), dtype=torch.long))
    model(torch.zeros((2, 5), dtype=torch.long))
    assert (work.calls, work.evaluations) == (2, 14)
    with counted_torch(model, positions=lambda args, named: len(args[0])) as work:
        model(torch.zeros((2, 5), dtype=torch.long))
    assert work.evaluations == 2


def test_scores_are_asked_for_once_however_often_a_method_asks() -> None:
    @procedure(decide=decide.best_reward)
    def scores_twice(n: int, by: Any) -> Any:
        population = yield from start(n)
        population = yield from step(population, until="done")
        first = yield from score(population, by)
        again = yield from score(population.take(np.zeros(3, dtype=np.int64)), by)
        assert (again == first[0]).all()
        return population.scored(first)

    assert failing(scores_twice(3, JUDGE)) == set()
