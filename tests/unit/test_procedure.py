"""A method is a value that checks its options; wrong ones say which call was meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Budget, Run, Scored, Stepped, UsageError, drive, procedure, reward, search
from anystep.calls import ContractError
from anystep.procedure import Count, Exploring, start, step
from anystep.search import decide
from anystep.testing.limits import unlimited
from anystep.testing.oracles import Critic, EnumerableLM, JudgeReward, Metropolis, Reviser

SHORT = reward(lambda states: 1 / (1 + states.size), "short")


@pytest.mark.parametrize(
    "call,shown",
    [
        (lambda: search.sample(n=0), r"sample\(n=0\): n must be a whole number, 1 or more; call sample\(n=1\)"),
        (lambda: search.sample(n=2.0), "whole number"),
        (lambda: search.sample(n=True), "whole number"),
        (lambda: search.best_of_n(n=2, reward=len), "must be a Reward"),
        (lambda: search.best_of_n(n=2), r"missing a required argument: 'reward'; call best_of_n\(n, reward\)"),
        (lambda: search.best_of_n(m=2, reward=SHORT), r"call best_of_n\(n, reward\)"),
        (lambda: search.particle_filter(n=2, potential=SHORT), r"must be a Potential, in log units"),
        (lambda: search.particle_filter(n=2, ess=1.5), r"a number in \[0, 1\]"),
        (lambda: search.mcts(reward=SHORT, c=0), "positive number"),
        (lambda: search.refine(n=2, critic=SHORT, reviser=EnumerableLM()), "must be a Process"),
        (lambda: search.together(), "together"),
        (lambda: search.together(SHORT), "drives methods"),
        (lambda: search.truncate(Metropolis(), 0), r"truncate\(process, 100\)"),
        (lambda: Run(search, search.sample(n=1)), "a Process is needed"),
        (lambda: Run(EnumerableLM(), search.sample), "a method is a call"),
    ],
)
def test_a_wrong_call_shows_the_one_that_was_meant(call: Any, shown: str) -> None:
    with pytest.raises(UsageError, match=shown) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_methods_are_values() -> None:
    one, other = search.best_of_n(4, SHORT), search.best_of_n(n=4, reward=SHORT)
    assert one == other and hash(one) == hash(other) and one != search.best_of_n(5, SHORT)
    assert repr(one) == "best_of_n(n=4, reward=short)"
    assert one.deciding(search.majority) != one and one.deciding(search.best_reward) == one
    assert one.rewards() == (SHORT,)


def test_a_method_can_be_run_again_and_by_two_runs_at_once() -> None:
    method = search.mcts(reward=SHORT, rounds=5)
    a, b, c = drive(*(Run(EnumerableLM(), method, seed=seed) for seed in (1, 1, 2)))
    assert a.family.parents == b.family.parents and a.value == b.value
    assert a.population is not None and c.population is not None
    assert a.population.key.tolist() != c.population.key.tolist()


@procedure(decide=decide.first_finished)
def odd(n: Count) -> Exploring:
    yield "please"  # type: ignore[misc]
    return (yield from start(n))


def test_an_unknown_ask_says_what_to_yield() -> None:
    with pytest.raises(UsageError, match="yield Start, Step, Score, Read, Draw or All"):
        Run(EnumerableLM(), odd(1))


class Undeclared(EnumerableLM):
    def start(self, keys: Any, limit: Any) -> Stepped:
        limit.pay(range(len(keys)), each=self.price(None))  # type: ignore[arg-type]
        return Stepped(self.begin(keys), np.zeros(len(keys), np.int8), np.zeros(1), np.zeros(1), type(limit.used)())


def test_a_cost_that_differs_from_what_was_paid_is_a_broken_contract() -> None:
    with pytest.raises(ContractError, match="declare limit.used"):
        drive(Run(Undeclared(), search.sample(n=1)))


def test_missing_rows_are_a_broken_contract() -> None:
    short = reward(lambda states: np.ones(1), "one row")
    with pytest.raises(ContractError, match="1 rows for 3"):
        drive(Run(EnumerableLM(), search.best_of_n(n=3, reward=short)))


def test_telling_too_few_replies_is_refused() -> None:
    run = Run(EnumerableLM(), search.sample(n=1))
    with pytest.raises(UsageError, match="waits for 1 replies and was told 0"):
        run.tell([])


@procedure(decide=decide.first_finished)
def steps_what_has_ended(n: Count) -> Exploring:
    population = yield from start(n)
    population = yield from step(population, until="done")
    return (yield from step(population))


def test_a_step_without_live_states_is_answered_without_the_process() -> None:
    run = Run(EnumerableLM(), steps_what_has_ended(3))
    drive(run)
    assert len(run.journal) == 2


def test_the_reserve_finishes_and_scores_one_state() -> None:
    """Half of the budget held back is always enough to finish one output here, so there is always an answer."""
    lm = EnumerableLM(seed=8, length=4)
    for tokens in range(8, 40):
        for method in (search.sample(n=9), search.beam(width=3, reward=SHORT), search.mcts(reward=SHORT)):
            run = Run(lm, method, Budget(tokens=tokens), reserve=0.5)
            (answer,) = drive(run)
            assert answer.value in lm.outputs and answer.cost.tokens <= tokens, (method, tokens)


def test_a_stopped_run_says_so() -> None:
    (answer,) = drive(Run(EnumerableLM(seed=8, length=6), search.sample(n=9), Budget(tokens=20)))
    assert answer.stopped_because == "tokens"
    assert answer.note.startswith(f"Stopped by tokens: {answer.finished} finished of 9 started")
    assert "biased short" in answer.note and answer.confidence is None


def test_a_note_claims_no_bias_where_all_or_none_had_finished() -> None:
    lm = EnumerableLM(seed=8, length=6)
    scored = search.best_of_n(n=4, reward=JudgeReward(lambda states: states.size / 6))
    (whole,) = drive(Run(lm, scored))
    (answer,) = drive(Run(lm, scored, Budget(tokens=whole.cost.tokens - 1), reserve=0.0))
    assert answer.finished == 4 and answer.note == "Stopped by tokens: 4 finished of 4 started."
    run = Run(lm, search.sample(n=9))
    run.cancel()
    (answer,) = drive(run)
    assert answer.note == "Cancelled: 0 finished of 9 started." and answer.text is None


def test_costs_are_booked_by_who_was_paid() -> None:
    lm = EnumerableLM(seed=2)
    judge = JudgeReward(lambda s: s.size / 5, "judge")
    (answer,) = drive(Run(lm, search.refine(n=3, critic=Critic(lm), reviser=Reviser(lm), reward=judge)))
    assert set(answer.costs) == {"enumerable-lm", "critic", "reviser", "judge"}
    assert answer.costs["critic"].evaluations == 3 and answer.costs["judge"].evaluations == 6
    assert sum(c.tokens for c in answer.costs.values()) == answer.cost.tokens


def test_a_stuck_score_is_not_a_zero() -> None:
    """What was refused is NaN, never a low score."""
    judge = JudgeReward(lambda s: s.size / 5, "judge")
    (answer,) = drive(Run(EnumerableLM(seed=2), search.best_of_n(n=4, reward=judge), Budget(evaluations=1), reserve=0))
    assert answer.population is None or np.isnan(answer.population.scores).all()
    assert isinstance(judge(EnumerableLM().begin(np.zeros(1, np.uint64)), unlimited()), Scored)
