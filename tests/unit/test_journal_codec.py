"""A round as plain data: exact, and nothing that is not a round gets through."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep import Cost, Run, Scored, Stepped, Unsupported, search
from anystep.calls import Asked
from anystep.errors import JournalError
from anystep.journal import decode, encode
from anystep.journal.codec import MOST, inflated, inline, inlined, parsed, said
from anystep.testing.oracles import EnumerableLM, FaultyLM
from anystep.testing.runs import finish
from anystep.told import Told
from toy_adder import Adder, Words

ADDER = Adder(12, 0.6)


def through_json(told: Told, process: Any = ADDER) -> Told:
    return decode(json.loads(json.dumps(encode(told, process), allow_nan=False)), process)


def bits(x: Any) -> list[bytes]:
    return [struct.pack("<d", v) for v in np.asarray(x).ravel().tolist()]


FLOATS = st.one_of(
    st.floats(allow_nan=False), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=5), st.floats(0, 1e9), st.booleans())
def test_every_float_comes_back_to_the_bit(pairs: list[tuple[float, float]], seconds: float, cut: bool) -> None:
    n = len(pairs)
    logp, logw = (np.array(column) for column in zip(*pairs, strict=True))
    words = Words(tuple("." * i for i in range(n)))
    cost = Cost(prompt=3, generated=n, flops=abs(float(np.nan_to_num(logp[0]))), money=0.1, seconds=seconds)
    stepped = Stepped(words, np.zeros(n, np.int8), logp, logw, cost, np.array([cut] * n) if cut else None)
    asked = (Asked("step", "adder", tuple(range(n))), Asked("score", "right", tuple(range(n))))
    costs = {"adder": cost, "right": Cost(estimated=True)}
    found = through_json(Told((stepped, Scored(logp, Cost())), "tokens", seconds, asked, True, costs))
    one, scored = found.replies
    assert isinstance(one, Stepped) and isinstance(scored, Scored)
    assert (found.refused, found.seconds, found.asked, found.again) == ("tokens", seconds, asked, True)
    assert found.costs == costs
    assert bits(one.logp) == bits(logp) == bits(scored.values) and bits(one.logw) == bits(logw)
    assert one.cost == cost and one.states == words and (one.cut is None) == (not cut)
    assert [type(x) for x in (one.cost.flops, one.cost.money, one.cost.prompt)] == [float, float, int]


def test_an_expansion_and_a_failure_come_back_whole() -> None:
    for process, method in ((EnumerableLM(length=3, expands=True), search.astar), (FaultyLM(share=0.4), None)):
        run = Run(process, search.sample(n=6) if method is None else method(EnumerableLM(length=3).to_go(), branch=2))
        finish(run)
        for told in run.journal:
            for one, other in zip(through_json(told, process).replies, told.replies, strict=True):
                assert type(one) is type(other) and one.cost == other.cost
                if isinstance(one, Stepped) and isinstance(other, Stepped):
                    for book in ("status", "logp", "logw", "cut", "parent"):
                        x, y = getattr(one, book), getattr(other, book)
                        assert x is y is None or (x.dtype == y.dtype and x.tobytes() == y.tobytes()), book
                    assert one.errors == dict(other.errors)
    assert any(reply.errors for told in run.journal for reply in told.replies if isinstance(reply, Stepped))


def test_finished_states_say_their_answer_for_readers_without_a_model() -> None:
    run = Run(ADDER, search.sample(n=2))
    finish(run)
    record = encode(list(run.journal)[-1], ADDER)["replies"][0]
    states = run_states(run)
    assert list(said(record).values()) == list(zip(ADDER.answers(states), ADDER.texts(states), strict=True))
    blind = parsed({"replies": [record], "refused": None, "seconds": 0.0})
    assert blind.replies[0].states is None and blind.replies[0].cost == list(run.journal)[-1].replies[0].cost


def run_states(run: Run) -> Any:
    assert run.answer is not None and run.answer.population is not None
    return run.answer.population.states


def test_states_that_cannot_be_written_are_refused_with_advice() -> None:
    class Mute(Adder):
        def dump(self, states: Words) -> bytes:
            return super(Adder, self).dump(states)

    run = Run(Mute(12, 0.6), search.sample(n=1))
    with pytest.raises(Unsupported, match="implement dump"):
        encode(Told(tuple(call.perform() for call in run.calls)), run.process)


def good() -> dict[str, Any]:
    run = Run(ADDER, search.sample(n=2))
    finish(run)
    return json.loads(json.dumps(encode(list(run.journal)[-1], ADDER)))


def damages() -> list[tuple[str, Any]]:
    """A place in a good record, and what somebody put there."""
    wrong = [
        ("replies", 3), ("replies", [3]), ("refused", 7), ("seconds", "soon"), ("seconds", None), ("seconds", True),
        ("replies.0.status", [0, 9]), ("replies.0.status", [0]), ("replies.0.status", [0, 1.5]),
        ("replies.0.status", None), ("replies.0.status", [0, True]), ("replies.0.status", [0, -1]),
        ("replies.0.logp", [1.0]), ("replies.0.logp", ["NaN", 0.0]), ("replies.0.logp", [None, 0.0]),
        ("replies.0.logw", {"0": 1}), ("replies.0.logp", [10**400, 0.0]), ("replies.0.cost", {"tokens": 3}),
        ("replies.0.cost", {"prompt": 1.5}), ("replies.0.cost", {"estimated": 1}), ("replies.0.cost", []),
        ("replies.0.cut", [True]), ("replies.0.cut", [1, 0]), ("replies.0.errors", {"7": "x"}),
        ("replies.0.errors", {"0": 7}), ("replies.0.errors", {"-1": "x"}), ("replies.0.errors", {"٣": "x"}),
        ("replies.0.parent", [0]), ("replies.0.parent", [0, 1 << 80]), ("replies.0.verb", "eval"),
        ("replies.0.verb", ["step"]), ("replies.0.by", 3), ("replies.0.ids", "ab"), ("replies.0.states", None),
        ("replies.0.states", {"bytes": 9, "zlib": "not base64!"}), ("replies.0.states", {"bytes": 9}),
        ("replies.0.states", {"bytes": 10**15, "zlib": ""}), ("replies.0.states", {"bytes": True, "zlib": ""}),
        ("costs", 3), ("costs", {"adder": 3}), ("costs", {"adder": {"calls": "x"}}),
        ("replies.0.states", inline(b"no json")), ("replies.0.states", inline(b"7")),
        ("replies.0.states", inline(b'["only one"]')), ("replies.0.states", {**inline(b"[1, 2]"), "bytes": 3}),
    ]  # fmt: skip
    return wrong


@pytest.mark.parametrize("place,value", damages(), ids=[f"{p}={str(v)[:30]}" for p, v in damages()])
def test_what_is_no_round_is_an_error_of_one_line(place: str, value: Any) -> None:
    record = good()
    holder, last = record, place.split(".")[-1]
    for step in place.split(".")[:-1]:
        holder = holder[int(step)] if step.isdigit() else holder[step]
    holder[last] = value
    with pytest.raises(JournalError) as caught:
        decode(record, ADDER)
    assert "\n" not in str(caught.value)


def test_compressed_states_never_become_more_than_was_said() -> None:
    bomb = inline(bytes(10_000_000))
    with pytest.raises(JournalError, match="not the 100 bytes"):
        inlined({**bomb, "bytes": 100})
    with pytest.raises(JournalError, match="not credible"):
        inflated(b"", MOST + 1)
    assert inlined(inline(b"some states")) == b"some states"
