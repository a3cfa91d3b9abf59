"""Workers over one cache obey every law of a process."""

from __future__ import annotations

import pytest

from anystep.language.accelerate import Hogwild
from anystep.process import Process
from anystep.testing import counted_torch, process_checks
from anystep.testing.checks_process import ProcessCheck
from models import tiny_engine

KINDS = {
    "two workers": {"stop": "a"},
    "three without headings": {"workers": 3, "heading": "", "stop": "b"},
    "one": {"workers": 1},
    "greedy": {"temperature": 0, "stop": "c"},
    "blind": {"shared": False},
}


@pytest.fixture(scope="module", params=KINDS)
def process(request: pytest.FixtureRequest) -> Hogwild:
    options = {"heading": "{name}:", "names": None, "max_tokens": 9} | KINDS[request.param]
    if options["heading"]:
        options["names"] = ("A", "B")[: options.get("workers", 2)]
    return Hogwild(tiny_engine(scale=0.15), "Hello: 12+34=", **options)


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
def test_it_is_a_process(process: Process, check: ProcessCheck) -> None:
    if check.__name__ == "it_is_a_process":
        process.forget()  # a round of headings after a cached prompt takes no pass at all
    check(process, lambda: counted_torch(process.engine.model))
