"""Functions as tools: what a model is told of them, and what is made of what it hands over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import AfterValidator

from anystep import Cost, UsageError
from anystep.language.tools import tool
from anystep.language.tools.calling import as_text, shortened
from anystep.language.tools.tool import Misuse


@tool
def add(a: Annotated[int, "the first"], b: int = 2) -> int:
    """Add two numbers.

    Whole ones.
    """
    return a + b


def test_a_tool_is_told_by_its_signature_and_docstring() -> None:
    assert add.described() == {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.\n\nWhole ones.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "description": "the first"},
                    "b": {"type": "integer", "default": 2},
                },
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    }
    assert add(1) == 3 and tool(add) is add


def test_no_arguments_and_odd_names_have_schemas_too() -> None:
    def now() -> str:
        return "noon"

    def odd(json: str, schema: int, copy: bool = True) -> str:  # names that a pydantic model would not take
        return json

    assert tool(now).parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    assert tool(now).checked("") == {} == tool(now).checked("{}")
    assert tool(odd).checked('{"json": "x", "schema": 1}') == {"json": "x", "schema": 1}


@dataclass
class Point:
    x: int
    y: int = 0


def draw(points: list[Point], colour: Literal["red", "blue"]) -> int:
    return len(points)


def test_nested_types_are_made() -> None:
    made = tool(draw).checked('{"points": [{"x": 1, "y": 2}], "colour": "red"}')
    assert made["points"] == [Point(1, 2)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"a": "x"}', "a: Input should be a valid integer"),
        ("{}", "a: Field required"),
        ('{"a": 1, "c": 2}', "c: Extra inputs are not permitted"),
        ("[1]", "must be a JSON object"),
        ("{'a': 1}", "no JSON"),
        ('{"a": NaN}', "no JSON (NaN is no number"),
        ("[" * 100_000, "no JSON"),
        ('{"a": ' + "9" * 5_000 + "}", "no JSON"),
        ('{"a": 1', "no JSON"),
    ],
)
def test_misuse_is_said_in_one_short_line(arguments: str, told: str) -> None:
    with pytest.raises(Misuse) as caught:
        add.checked(arguments)
    assert told in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 700


def boom(value: int) -> int:
    raise KeyError("boom")


def take(a: Annotated[int, AfterValidator(boom)]) -> int:
    return a


def test_a_type_s_own_validator_may_raise_anything() -> None:
    with pytest.raises(Misuse, match="KeyError"):
        tool(take).checked('{"a": 1}')


def _many(*names: str) -> None: ...


def _bare(a) -> None: ...  # type: ignore[no-untyped-def]


def _none() -> None: ...


def _strange(a: Any, b: object()) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: tool(_many), r"\*names"),
        (lambda: tool(_bare), "say what a is"),
        (lambda: tool(lambda a: a), "no name that a model can call"),
        (lambda: tool(3), "no name that a model can call"),
        (lambda: tool(_none, world=True), "first argument is the world"),
        (lambda: tool(_strange), "no JSON schema"),
        (lambda: tool(_none, name="has space"), "no name that a model can call"),
        (lambda: tool(_none, colour="red"), "its options are"),
        (lambda: tool(_none, on_error="hide"), "'tell' the model, or 'fail'"),
        (lambda: tool(_none, timeout=0), "seconds above 0"),
        (lambda: tool(_none, timeout=True), "seconds above 0"),
        (lambda: tool(_none, cost=0.1), "a Cost, such as"),
        (lambda: tool(_none, longest=0), "characters, such as"),
        (lambda: tool(_none, final="yes"), "True or False"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_what_could(make: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_options_make_another_tool_and_equal_ones_are_equal() -> None:
    assert tool(_none, cost=Cost(calls=1)) != tool(_none) == tool(_none)
    assert tool(timeout=3)(_none).timeout == 3
    assert tool(_none, description=" What. ").description == "What."


def test_results_become_text() -> None:
    assert as_text("plain") == "plain"
    assert as_text({"a": [1, 2.5, None, True]}) == '{"a":[1,2.5,null,true]}'
    assert as_text(Point(3)) == '{"x":3,"y":0}'
    assert as_text(np.arange(3)) == "[0,1,2]" and as_text(np.float64(0.5)) == "0.5"
    assert as_text("a\ud800b") == "a?b"  # half a character, which no text can hold
    assert as_text(b"\xff") == "b'\\xff'"
    loop: list[Any] = []
    loop.append(loop)
    assert as_text(loop) == "[[...]]"


def test_long_results_are_cut_and_say_so() -> None:
    assert shortened("x" * 12, 12) == "x" * 12
    assert shortened("x" * 2_000, 500) == "x" * 500 + "\n[1,500 more characters left out]"
