"""What every reward and potential must do; `check_reward(reward, states)` runs all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from anystep.ledger import JointLimit, Ledger, Limit
from anystep.process import Potential, Reward
from anystep.testing.checks_process import own_hook
from anystep.testing.counting import Hook
from anystep.testing.limits import RefusesAt, unlimited

RewardCheck = Callable[[Reward, Any, Hook], None]
reward_checks: list[RewardCheck] = []


def check_reward(reward: Reward, states: Any, hook: Hook | None = None) -> None:
    """Run every check of `reward_checks` on some states, partial and finished; AssertionError says what is broken.

    hook: counts the reward's real work; by default the calls of its method `forward`, and none where it has none. Where
    payments are compared the reward is made to `forget` first, for what is cached is not paid for again.
    """
    for check in reward_checks:
        check(reward, states, hook or own_hook(reward.source()))


def _check(function: RewardCheck) -> RewardCheck:
    reward_checks.append(function)
    return function


def _values(reward: Reward, states: Any) -> Any:
    return reward(states, unlimited()).values


@_check
def values_are_in_range(reward: Reward, states: Any, hook: Hook) -> None:
    """One float64 a state, in the declared range or NaN; a potential may be minus infinity, never plus."""
    values, (low, high) = _values(reward, states), reward.range
    assert low < high, f"{reward.name}: range {reward.range} is empty"
    assert values.shape == (len(states),) and values.dtype == np.float64, f"{reward.name}: values {values!r}"
    outside = values[(values < low) | (values > high)]
    assert len(outside) == 0, f"{reward.name}: {outside} are outside its range {reward.range}; declare a wider one"
    if isinstance(reward, Potential):
        assert not (values == np.inf).any(), f"{reward.name}: an infinite potential has no normalising constant"


@_check
def it_is_a_function_of_the_state(reward: Reward, states: Any, hook: Hook) -> None:
    """Calling again, in another order, one by one or twice over gives the same value for the same state."""
    values, n = _values(reward, states), len(states)
    back = np.arange(n)[::-1]
    assert np.allclose(_values(reward, states.take(back)), values[back], equal_nan=True), (
        f"{reward.name}: order matters"
    )
    one = np.concatenate([_values(reward, states.take(np.array([i]))) for i in range(n)])
    assert np.allclose(one, values, rtol=1e-5, atol=1e-5, equal_nan=True), f"{reward.name}: the batch changes a value"
    twice = _values(reward, states.join(states))
    assert np.allclose(twice, np.tile(values, 2), rtol=1e-5, atol=1e-5, equal_nan=True), (
        f"{reward.name}: repeats differ"
    )


@_check
def work_counted_is_work_paid(reward: Reward, states: Any, hook: Hook) -> None:
    """Evaluations and calls seen by the hook are those declared and those paid."""
    limit = unlimited()
    reward.forget()
    with hook() as work:
        scored = reward(states, limit)
    assert scored.cost.same(limit.used), f"{reward.name}: declared {scored.cost}, paid {limit.used}"
    paid, done = (limit.used.evaluations, limit.used.calls), (work.evaluations, work.calls)
    assert paid == done, f"{reward.name}: paid (evaluations, calls) = {paid}, the hook counted {done}"


@_check
def a_refused_payment_gives_nan(reward: Reward, states: Any, hook: Hook) -> None:
    """Refused at any payment it does no more work, and what was not paid for is NaN; the rest is right."""
    values, limit = _values(reward, states), RefusesAt(10**9)
    reward.forget()
    reward(states, limit)
    for k in range(10**9 - limit.left):
        refusing = RefusesAt(k)
        reward.forget()
        with hook() as work:
            part = reward(states, refusing)
        known = ~np.isnan(part.values)
        assert work.evaluations == refusing.used.evaluations, f"{reward.name}: it works on after refusal {k}"
        assert part.cost.same(refusing.used), f"{reward.name}: declared {part.cost}, paid {refusing.used}"
        assert np.allclose(part.values[known], values[known]), f"{reward.name}: refusal {k} changes values"
        assert k > 0 or not known.any(), f"{reward.name}: values without paying"


@_check
def merged_is_alone(reward: Reward, states: Any, hook: Hook) -> None:
    """In a batch shared by two runs each pays for its own states, and what they share in a cache is paid for once."""
    half = len(states) // 2
    limits = [Limit(Ledger(), reward.name) for _ in range(2)]
    reward.forget()
    with hook() as work:
        scored = reward(states, JointLimit(limits, [half, len(states) - half]))
    assert np.allclose(scored.values, _values(reward, states), rtol=1e-5, atol=1e-5, equal_nan=True), "merging"
    paid = sum(limit.used.evaluations for limit in limits)
    assert paid == work.evaluations, f"{reward.name}: merged, runs pay {paid} evaluations, the hook counted {work}"
    for limit, rows in zip(limits, (np.arange(half), np.arange(half, len(states))), strict=True):
        own = unlimited(reward.name)
        reward.forget()
        reward(states.take(rows), own)
        shared = limit.used.cached - own.used.cached
        passes = own.used.calls if limit.used.cached == 0 else limit.used.calls  # a prefix of both may take its own
        alike = limit.used.same(replace(own.used, calls=passes))
        told = f"{reward.name}: merged, a run pays {limit.used}, alone {own.used}"
        assert alike or (shared > 0 and limit.used.tokens == own.used.tokens - shared), told


@_check
def it_is_a_value(reward: Reward, states: Any, hook: Hook) -> None:
    """It is hashable, prints without an address, and its source's values give its own."""
    assert hash(reward) == hash(reward) and reward == reward, f"{reward.name} is not hashable"
    assert " at 0x" not in repr(reward), f"{reward!r} prints an address; a frozen dataclass does not"
    source = _values(reward.source(), states)
    assert np.allclose(reward.read(source), _values(reward, states), equal_nan=True), f"{reward.name}: read(source)"
