"""What tells two functions apart in a process's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from anystep.language import LanguageProcess
from anystep.language.functions import identity
from anystep.language.revising import revising
from models import tiny_engine


def at_top(prompt: str, text: str) -> str:
    return prompt


class Callable:
    def __call__(self, prompt: str, text: str) -> str:
        return prompt


def made(word: object) -> object:
    return lambda prompt, text: f"{prompt}{word}"


def test_a_function_of_a_module_is_its_name_and_lambdas_are_what_they_do() -> None:
    assert identity(at_top) == "at_top" and identity(Callable()) == "Callable"
    one, other = (lambda p, t: p + "a"), (lambda p, t: p + "b")
    again = lambda p, t: p + "a"  # noqa: E731
    assert len({identity(one), identity(other)}) == 2 and identity(one) == identity(again)
    assert identity(made(1)) != identity(made(2)) and identity(made("x")) == identity(made("x"))
    assert identity(made({"a": [1]})) != identity(made({"a": [2]}))
    assert identity(made(one)) != identity(made(other)) and identity(made(at_top)) != identity(made(one))
    first, second = (lambda p, t=1: p), (lambda p, t=2: p)
    assert identity(first) != identity(second)
    upper, lower = (lambda p, t: p.upper()), (lambda p, t: p.lower())
    assert identity(upper) != identity(lower)


def counting(word: str) -> object:
    def again(prompt: str, text: str) -> str:
        return again(prompt[1:], text) if prompt else word

    return again


def test_a_function_that_calls_itself_has_a_name_and_a_partial_one_its_arguments() -> None:
    assert identity(counting("a")) == identity(counting("a")) != identity(counting("b"))
    loop: list[object] = ["x"]
    loop.append(loop)
    assert identity(made(loop)) == identity(made(loop)) != identity(made(["x"]))
    found = {identity(partial(f, x)) for f in (at_top, Callable()) for x in ("a", "b")}
    assert len(found) == 4 and identity(partial(at_top, text="a")) == identity(partial(at_top, text="a"))


def test_it_is_the_same_in_every_process() -> None:
    source = str(Path(__file__).parents[2] / "src")
    code = "from anystep.language.functions import identity; print(identity(lambda p, t: {'x', 'y'} and p + 'a'))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and "<lambda> " in found.pop()


def test_revisers_of_two_lambdas_are_two_in_the_eyes_of_a_journal() -> None:
    process = LanguageProcess(tiny_engine(), "one")
    a, b = (revising(process, lambda p, t, word=word: f"{p}{t}{word}") for word in ("shorter", "longer"))  # type: ignore
    assert a.settings() != b.settings()
    assert revising(process, at_top).settings().endswith("rewritten by 'at_top'")
