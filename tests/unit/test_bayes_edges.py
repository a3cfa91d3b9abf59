"""Programs that are wrong, weights that vanish, and states that JSON would change."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anystep import keys
from anystep.bayes import (
    Factor,
    Finite,
    Inner,
    Normal,
    Observe,
    ProgramProcess,
    Sample,
    Suspended,
    TraceKernel,
    Uniform,
    advance,
    choice,
    flip,
    measure,
    mh_step,
    trace_mh,
)
from anystep.bayes.process import perform
from anystep.errors import Unsupported, UsageError
from anystep.ledger import Ledger, Limit
from anystep.process import Status


def uniforms(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    while True:
        yield rng.random()


def long() -> Any:
    x = yield Sample(Normal(0.0, 1.0))
    for _ in range(500):
        yield Observe(Normal(x, 1.0), x + 1.5)
    return x


def test_a_weight_that_floats_cannot_hold_is_not_an_impossible_one() -> None:
    """Every move of this program is accepted: its factors are the same wherever x is."""
    state = perform(advance(Suspended(long), None), uniforms(0))
    assert state.weight == 0 and state.possible
    assert len(set(perform(trace_mh(long, 5), uniforms(1)))) == 5


def test_a_move_whose_ratio_is_no_number_is_refused() -> None:
    def wild() -> Any:
        x = yield Sample(flip(0.5))
        yield Factor(1e200 if x else 1e-200)
        yield Factor(1e200 if x else 1e-200)
        yield Factor(0.0 if x else 1.0)

    start = Suspended(wild, ((flip(0.5), False),), (1e-200, 1e-200, 1.0), done=True)
    for seed in range(8):
        assert perform(mh_step(start), uniforms(seed)).possible


def bare_distribution() -> Any:
    return (yield flip(Fraction(1, 2)))


def a_number() -> Any:
    return (yield 5)


def samples_a_number() -> Any:
    return (yield Sample(5))  # type: ignore[arg-type]


def observes_a_number() -> Any:
    yield Observe(5, 5)  # type: ignore[arg-type]


def negative() -> Any:
    yield Factor(-1)


def no_number() -> Any:
    yield Factor(float("nan"))


def weighted() -> Any:
    rain = yield Sample(flip(Fraction(1, 2)))
    yield Factor(Fraction(1, 10) if rain else Fraction(1))
    return rain


def factors_within() -> Any:
    return (yield Inner(weighted))


def no_generator() -> Any:
    return 3


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (bare_distribution, "yields Sample"),
        (a_number, "yields Sample"),
        (samples_a_number, "takes a distribution"),
        (observes_a_number, "a distribution first"),
        (negative, "0 or more"),
        (no_number, "0 or more"),
        (factors_within, "within Inner would be lost"),
        (no_generator, "without arguments that yields"),
    ],
)
def test_a_wrong_program_says_what_was_meant(program: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        measure(program)
    process, limit, born = ProgramProcess(program, horizon=3), Limit(Ledger(), "test"), keys.roots(0, (), [0, 1])
    reply = process.step(process.start(born, limit).states, born, limit, "done")
    assert (reply.status == Status.FAILED).all() and said in reply.errors[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: flip(float("nan")),
        lambda: choice([0, 0]),
        lambda: choice([0.0]),
        lambda: choice([float("inf"), 1.0]),
        lambda: Uniform(1.0, 0.0),
        lambda: Uniform(1.0, 1.0),
    ],
)
def test_what_is_no_distribution_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()


def test_values_that_json_would_change_are_not_dumped() -> None:
    """A tuple would come back as a list, which is another value."""

    def pairs() -> Any:
        pair = yield Sample(Finite(((0, 1), (1, 0)), (0.5, 0.5)))
        yield Factor(1)
        return pair

    process, limit, born = ProgramProcess(pairs, horizon=2), Limit(Ledger(), "test"), keys.roots(0, (), [0, 1])
    states = process.step(process.start(born, limit).states, born, limit, "step").states
    with pytest.raises(Unsupported, match="keeps no journal"):
        process.dump(states)


def test_a_kernel_fails_the_rows_whose_move_fails_and_no_others() -> None:
    def brittle() -> Any:
        x = yield Sample(Uniform())
        if x > 0.5:
            raise OverflowError("too large")
        yield Factor(1.0)
        return x

    born, limit = keys.roots(0, (), np.arange(40)), Limit(Ledger(), "test")
    process = ProgramProcess(brittle, horizon=2)
    first = process.step(process.start(born, limit).states, born, limit, "step")
    live = np.flatnonzero(first.status == Status.LIVE)
    moved = TraceKernel(process).step(first.states.take(live), keys.children(born[live], 5, 0), limit, "step")
    failed = moved.status == Status.FAILED
    assert failed.any() and (moved.status[~failed] == Status.LIVE).all()
    assert set(moved.errors.values()) == {"too large"} and set(moved.errors) == set(np.flatnonzero(failed).tolist())
