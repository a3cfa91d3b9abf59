"""The bounded reader of values: what it keeps, and what hostile bytes cannot make it do."""

from __future__ import annotations

import contextlib
import math
import random
import struct
from collections import Counter, OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep.sandbox.values import NotLiteral, dumps, loads

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary()
)
keys = atoms | st.tuples(atoms, atoms)
literals = st.recursive(
    atoms,
    lambda part: (
        st.lists(part, max_size=4)
        | st.lists(part, max_size=4).map(tuple)
        | st.sets(keys, max_size=4)
        | st.dictionaries(keys, part, max_size=4)
    ),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and repr(a) == repr(b) if isinstance(a, float) else type(a) is type(b) and a == b


@given(literals)
def test_a_literal_comes_back_as_it_was(value: Any) -> None:
    assert same(loads(dumps(value)), value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except NotLiteral:
        return
    assert loads(dumps(value)) == value or "nan" in repr(value)


def test_bytes_of_a_value_changed_at_random_are_a_value_or_refused() -> None:
    draw = random.Random(0)
    whole = dumps({"a": [1, 2.5, (None, True)], "b": {b"x", "y"}, 3: -(10**30)})
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with contextlib.suppress(NotLiteral):
            loads(bytes(data[: draw.randrange(1, len(data) + 1)]))


def test_not_a_number_and_the_sign_of_zero_are_kept() -> None:
    assert math.isnan(loads(dumps(float("nan"))))
    assert math.copysign(1, loads(dumps(-0.0))) == -1


def test_subclasses_come_as_what_they_are_based_on() -> None:
    value = loads(dumps([Counter("aab"), OrderedDict(x=1), frozenset({1})]))
    assert [type(v) for v in value] == [dict, dict, set]


@pytest.mark.parametrize("value", [object(), len, 1j, [print], {1: lambda: 0}, range(3)])
def test_what_is_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(NotLiteral, match="no literal"):
        dumps(value)


def test_depth_is_bounded_both_ways() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(NotLiteral, match="containers within"):
        dumps(ring)
    with pytest.raises(NotLiteral, match="containers within"):
        loads(b"l\0\0\0\1" * 100_000)


def test_a_length_beyond_the_bytes_allots_nothing() -> None:
    for kind in b"isblted":
        with pytest.raises(NotLiteral):
            loads(bytes([kind]) + struct.pack(">I", 0xFFFFFFFF))


def test_keys_of_one_hash_are_refused_before_the_table_is_built() -> None:
    prime = (1 << 61) - 1  # Python's hash of an int is its remainder by this
    with pytest.raises(NotLiteral, match="one hash"):
        loads(dumps([k * prime for k in range(5000)]).replace(b"l", b"e", 1))
    with pytest.raises(NotLiteral, match="cannot be"):
        loads(b"e\0\0\0\1l\0\0\0\0")
