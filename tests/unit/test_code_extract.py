"""The program in a model's text: fences, continuations, bodies alone, slips; and that nothing raises or is run."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.tasks.code import extract_program

STUB = '''from math import pi


def half(x):
    return x / 2


def area(r):
    """The area.

    >>> area(0)
    0.0
    """
'''
WANTED = "return pi * half(2 * r) ** 2"
WHOLE = f"def area(r):\n    {WANTED}\n"
HEAD = "from math import pi\n\ndef half(x):\n    return x / 2\n"


def program(text: str) -> str | None:
    return extract_program(text, "area", STUB)


def value(code: str | None) -> float:
    assert code is not None
    space: dict = {}
    exec(code, space)
    return space["area"](2)


READ = {
    "the function": WHOLE,
    "a fence": f"```python\n{WHOLE}```",
    "a fence without a language": f"Sure!\n\n```\n{WHOLE}```\nIt works.",
    "a fence that is not closed": f"Here it is:\n```py\n{WHOLE}",
    "tildes": f"~~~\n{WHOLE}~~~",
    "an indented fence": f"1. This:\n   ```python\n   def area(r):\n       {WANTED}\n   ```",
    "the last of two": f"```python\ndef area(r):\n    return 0\n```\nBetter:\n```python\n{WHOLE}```",
    "the only one that defines it": f"```python\n{WHOLE}```\nUse it so:\n```python\nprint(area(2))\n```",
    "prose around it": f"The answer is as follows.\n{WHOLE}\nThis returns the area, as asked.",
    "a word before it": f"Sure\n\n{WHOLE}",
    "prose that begins like code": f"from the text we see\n{WHOLE}",
    "a label": f"Answer:\n{WHOLE}",
    "the body": f"    {WANTED}\n",
    "the body in a fence": f"```python\n    {WANTED}\n```",
    "the body, its first line slipped": f"r = 2 * r\n    r = r / 2\n    {WANTED}\n",
    "the body without indentation": f"r = 2 * r\nr = r / 2\n{WANTED}\n",
    "the body, the rest indented too far": f"  r = 2 * r\n      r = r / 2\n      {WANTED}\n",
    "the body, then another function": f"    {WANTED}\n\ndef other(x):\n    return x\n",
    "the body, then half a line": f"    {WANTED}\n\ndef ",
    "the body, then prose": f"    {WANTED}\n\nThe function returns the area.",
    "the body, then a fence's end": f"    {WANTED}\n```\n\nThe function returns",
    "the whole prompt again": f"{STUB}    {WANTED}\n",
    "a call at the end": f"{WHOLE}\nprint(area('x'))\narea('x')\nassert area(2) == 7\n",
    "a main guard": f"{WHOLE}\nif __name__ == '__main__':\n    raise SystemExit\n",
    "a lambda": "area = lambda r: pi * half(2 * r) ** 2\n",
    "line ends of another system": f"```python\r\n{WHOLE}```".replace("\n", "\r\n").replace("\r\r", "\r"),
    "tabs": f"def area(r):\n\t{WANTED}\n",
}


@pytest.mark.parametrize("name", READ)
def test_a_program_is_read(name):
    assert value(program(READ[name])) == pytest.approx(12.566370614359172)


NONE = {
    "nothing": "",
    "blanks": " \n\t\n",
    "prose": "I do not know how to do that.",
    "another function": "```python\ndef volume(r):\n    return r ** 3\n```",
    "a signature alone": "def area(r):",
    "a fence alone": "```",
    "an empty fence": "```python\n```",
    "what is no code": "area(r) = pi r^2",
    "a null": "def area(r):\n    return '\0'",
    "half a character": "def area(r):\n    return '\ud800'",
    "brackets without end": "def area(r): return " + "(" * 9_000,
    "signs without end": "def area(r): return " + "-" * 15_000 + "1",
    "sums without end": "def area(r): return 1" + "+1" * 9_000,
}


@pytest.mark.parametrize("name", NONE)
def test_where_there_is_none_there_is_none(name):
    assert program(NONE[name]) is None


def test_without_a_prompt_a_body_is_no_program():
    assert extract_program(f"    {WANTED}\n", "area") is None
    assert extract_program(WHOLE, "area") == WHOLE.strip()


def test_texts_that_differ_in_nothing_that_matters_hold_one_program():
    spelled = [
        "def area(r):\n    return 'a'",
        'def area(r): return "a"  # so\n',
        "```python\n\ndef area(r):\n\n  return ('a')\n```",
    ]
    assert len({program(text) for text in spelled}) == 1


def test_the_prompt_s_helpers_stand_before_it_and_may_be_replaced():
    own = program(f"def half(x):\n    return 0\n\n{WHOLE}")
    assert own is not None and own.startswith(HEAD.strip()) and value(own) == 0.0


def test_reading_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    for text in (f"open({str(mark)!r}, 'w')\n{WHOLE}", f"```python\n__import__('os').mkdir({str(mark)!r})\n{WHOLE}```"):
        assert program(text) is not None
    assert not mark.exists()


def test_an_odd_escape_is_read_without_a_warning():
    assert program("def area(r):\n    return '\\d'\n") is not None


PIECES = st.sampled_from(
    ["```python\n", "```\n", "def area(r):\n", "    return r\n", "return r\n", "  x = (\n", "\n", "@", "class A:\n"]
    + ["prose ", "    if r:\n", "'''", "import os\n", "# ", "print(area(1))\n", "\x0c", "\\", "\ud800", "lambda: "]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=14).map("".join)))
def test_no_text_raises_and_what_is_read_is_a_program_that_defines_the_function(text):
    found = program(text)
    if found is not None:
        names = [getattr(node, "name", None) for node in ast.parse(found).body]
        assigned = [
            t.id
            for n in ast.parse(found).body
            if isinstance(n, ast.Assign)
            for t in n.targets
            if isinstance(t, ast.Name)
        ]
        assert "area" in [*names, *assigned]
        assert program(found) == found


def test_a_tab_in_a_text_stays_one_and_a_byte_order_mark_is_no_code() -> None:
    found = extract_program("\ufeffdef f(x):\n\treturn 'a\tb'", "f")
    assert found is not None
    space: dict[str, object] = {}
    exec(found, space)
    assert space["f"](1) == "a\tb"  # type: ignore[operator]
