"""Tests as a reward: what every reward must do, the price, unfinished states, and its place in the procedures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Ledger, Limit, Run, drive, sandbox, search, tasks, verify
from anystep.calibrate import states_of
from anystep.errors import UsageError
from anystep.keys import uniforms
from anystep.ledger import Cost, JointLimit
from anystep.naming import named_method
from anystep.process import Process, Status, Stepped
from anystep.tasks import code
from anystep.tasks.code import Case, Cases, Problem
from anystep.testing import check_reward
from anystep.testing.counting import Work

EXAMPLES = tuple(Case((n,), n * n) for n in (2, 3, 0, -1))
STUB = 'def square(n: int) -> int:\n    """Return n squared."""\n'
SQUARE = Problem("square", "square", STUB, EXAMPLES, Cases((Case((9,), 81), Case((-4,), 16))))
TASK = replace(tasks.load("programs", 1)[0], id="square", prompt="Square!", meta={"problem": SQUARE})
BODIES = {"n * n": 1.0, "n + n": 0.5, "abs(n * n * n)": 0.5, "4 if n == 2 else 9 if n == 3 else n": 0.75, "1 / 0": 0.0}
WHOLE = [f"```python\ndef square(n):\n    return {body}\n```" for body in BODIES]
PARTS = ["", "Let me think.", "```python\ndef square(n):", "```python\ndef square(n):\n    if n =="]


def states(*texts: str) -> Any:
    return states_of([("Square!", text) for text in texts])


def values(reward: Any, *texts: str) -> list[float]:
    return list(reward(states(*texts), Limit(Ledger(), "test")).values.tolist())


@contextmanager
def programs_run() -> Iterator[Work]:
    """Counts the programs that are really opened in the sandbox, nothing being remembered."""
    code.forget()
    work, box = Work(), sandbox.shared()
    original = box.open

    def opening(program: Any) -> Any:
        work.calls += 1
        return original(program)

    box.open = opening  # type: ignore[method-assign]
    try:
        yield work
    finally:
        del box.open


@pytest.mark.parametrize("all", [False, True])
def test_it_is_a_reward(all):
    check_reward(verify.tests(TASK, all=all), states(*WHOLE, WHOLE[0], WHOLE[1]), programs_run)


def test_its_value_is_the_share_of_the_examples_that_hold():
    assert values(verify.tests(TASK), *WHOLE) == list(BODIES.values())
    assert values(verify.tests(TASK, all=True), *WHOLE) == [float(value == 1.0) for value in BODIES.values()]


def test_what_holds_no_program_yet_is_worth_nothing_and_costs_nothing():
    limit = Limit(Ledger(), "test")
    scored = verify.tests(TASK)(states(*PARTS), limit)
    assert scored.values.tolist() == [0.0] * len(PARTS) and limit.used == Cost()
    started = "```python\ndef square(n):\n    if n == 2:\n        return 4\n"  # runs as it stands
    assert values(verify.tests(TASK), started) == [0.25]


def test_equal_programs_are_run_and_paid_once_by_each_who_asks():
    spelled = [f"def square(n):\n    return n * n  # {i}\n" for i in range(4)]
    limit = Limit(Ledger(), "test")
    with programs_run() as work:
        assert verify.tests(TASK)(states(*spelled), limit).values.tolist() == [1.0] * 4
    assert (work.calls, limit.used.calls) == (1, 1)
    each = [Limit(Ledger(), "test") for _ in range(2)]
    with programs_run() as work:
        verify.tests(TASK)(states(*spelled), JointLimit(each, [1, 3]))
    assert (work.calls, [one.used.calls for one in each]) == (1, [1, 1])


def test_what_a_budget_refuses_is_not_run_and_has_no_value():
    ledger = Ledger(Budget(calls=2), reserve=0.0)
    with programs_run() as work:
        found = verify.tests(TASK)(states(*WHOLE), Limit(ledger, "tests")).values
    assert work.calls == ledger.spent.calls == 2
    assert found[:2].tolist() == [1.0, 0.5] and np.isnan(found[2:]).all()


def test_where_no_sandbox_can_be_had_nothing_has_a_value(monkeypatch):
    def none() -> Any:
        raise UsageError("no boundary holds here")

    code.forget()
    monkeypatch.setattr(sandbox, "shared", none)
    assert np.isnan(values(verify.tests(TASK), *WHOLE)).all()
    assert np.isnan(TASK.meta["problem"] and code.verdicts([(SQUARE, WHOLE[0])])[0])
    assert code.behaviours([(SQUARE, WHOLE[0])]) == [None]
    monkeypatch.undo()
    assert values(verify.tests(TASK), WHOLE[0]) == [1.0]  # the failure was not remembered


def test_several_tasks_are_told_apart_by_their_prompt():
    cube = replace(SQUARE, key="cube", shown=(Case((2,), 8),))
    other = replace(TASK, id="cube", prompt="Cube!", meta={"problem": cube})
    reward = verify.tests(TASK, other)
    pairs = [("<user>Square!</user>", WHOLE[0]), ("<user>Cube!</user>", WHOLE[0])]
    assert reward(states_of(pairs), Limit(Ledger(), "test")).values.tolist() == [1.0, 0.0]
    with pytest.raises(UsageError, match="none of its tasks has the prompt"):
        reward(states_of([("Sum!", WHOLE[0])]), Limit(Ledger(), "test"))


def test_a_problem_without_examples_asks_that_a_program_loads():
    silent = replace(SQUARE, key="silent", shown=())
    told = replace(SQUARE, key="told", shown=(Case((2,)), Case((3,))))
    broken = "import nothing_of_the_kind\ndef square(n):\n    return n\n"
    failing = "def square(n):\n    return [][n]\n"
    assert code.shares([(silent, WHOLE[1]), (silent, broken)]) == [1.0, 0.0]
    assert code.shares([(told, WHOLE[1]), (told, failing), (told, broken)]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("call", [lambda: verify.tests(), lambda: verify.tests(tasks.load("word-problems", 1)[0])])
def test_what_it_cannot_check_is_refused_in_one_line(call):
    with pytest.raises(UsageError, match=r"call verify.tests\(") as error:
        call()
    assert "\n" not in str(error.value)


def test_equal_programs_are_one_vote_and_those_without_a_value_none():
    keys = code.behaviours([(SQUARE, text) for text in [*WHOLE, "def square(n):\n    return n ** 2\n", "", "x ="]])
    assert keys[0] == keys[5] == "4 | 9 | 0 | 1" and keys[4] is keys[6] is keys[7] is None
    assert len({*keys[:4]}) == 4
    part = code.behaviours([(SQUARE, "def square(n):\n    return 4 // n\n")])
    assert part == ["2 | 1 | !ZeroDivisionError | -4"]
    long, longer = code.behaviours([(SQUARE, f"def square(n):\n    return [n] * {k}") for k in (900, 901)])
    assert long is not None and longer is not None and len(long) < 1_000 and long != longer
    silent = replace(SQUARE, key="silent", shown=())
    one, again, other, broken = code.behaviours(
        [(silent, text) for text in (WHOLE[0], WHOLE[0][10:], WHOLE[1], "1 / 0\n" + WHOLE[0][10:])]
    )
    assert one == again != other and one is not None and broken is None


class Author(Process):
    """Writes one of the programs at random, in two steps: the signature, then the body."""

    name, horizon, logp = "author", 2, "mass"

    def start(self, keys: Any, limit: Limit) -> Stepped:
        n = len(keys)
        return Stepped(states(*[""] * n), np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Any, keys: Any, limit: Limit, until: Any) -> Stepped:
        n = len(states)
        paid = limit.pay(np.arange(n), each=Cost(generated=1))
        texts, status = list(states.texts()), np.zeros(n, np.int8)
        for i in np.flatnonzero(paid).tolist():
            for _ in range(1 if until == "step" else 2):
                if status[i] == Status.DONE:
                    break
                if not texts[i]:
                    texts[i] = "def square(n):\n"
                else:
                    texts[i] += f"    return {list(BODIES)[int(uniforms(keys[i : i + 1])[0] * len(BODIES))]}\n"
                    status[i] = Status.DONE
        pairs = zip(states.prompts(), texts, strict=True)
        zeros = np.zeros(n)
        return Stepped(states_of(pairs), status, zeros, zeros, limit.used, cut=~paid)

    def answers(self, states: Any) -> tuple[Any, ...]:
        return tuple(code.behaviours([(SQUARE, text) for text in states.texts()]))

    def texts(self, states: Any) -> tuple[str, ...]:
        return tuple(states.texts())


@pytest.mark.parametrize(
    "method",
    [
        search.best_of_n(n=16, reward=verify.tests(TASK)),
        search.beam(width=4, branch=4, reward=verify.tests(TASK)),
        search.particle_filter(n=16, potential=verify.tests(TASK).log_odds()),
        search.mcts(rounds=16, reward=verify.tests(TASK)),
        search.self_consistency(n=16).deciding(search.majority),
    ],
    ids=lambda method: repr(method).split("(")[0],
)
def test_every_procedure_can_use_it(method):
    (answer,) = drive(Run(Author(), method, Budget(calls=500), seed=1))
    assert answer.text is not None
    if repr(method).startswith("self_consistency"):
        assert "tests" not in answer.costs and answer.value is not None
    else:
        assert answer.costs["tests"].calls > 0 and code.shares([(SQUARE, answer.text)]) == [1.0]


def test_a_method_s_text_can_name_it():
    method = named_method("best_of_n(n=4, reward=tests)", TASK).method
    assert method == search.best_of_n(n=4, reward=verify.tests(TASK))
    with pytest.raises(UsageError, match="--task programs"):
        named_method("best_of_n(n=4, reward=tests)", "What is 2 + 2?")
