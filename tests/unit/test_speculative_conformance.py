"""Speculating processes obey every law of a process, with every drafter whose guesses depend on the row alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from test_language_process import KINDS

from anystep.language import LanguageProcess
from anystep.language.accelerate import DraftModel, EarlyLayers, PromptLookup, Reject, Thrift, TrieLookahead, speculate
from anystep.testing import process_checks
from anystep.testing.counting import Work
from models import tiny_engine

HERE = Thrift(slope=0.05, crowd=1)  # what is drafted does not depend on company either
CASES = {
    **{kind: (kind, lambda: PromptLookup(), None) for kind in KINDS},
    "trie": ("step", lambda: TrieLookahead(remember=False), None),
    "a draft model": ("step", lambda: DraftModel(tiny_engine(seed=1, scale=0.15), width=2, level=0.01), None),
    "early layers": ("ends", lambda: EarlyLayers(1), None),
    "rejecting": ("token", lambda: PromptLookup(), Reject()),
}


@pytest.fixture(scope="module", params=CASES)
def process(request):
    kind, drafter, verifier = CASES[request.param]
    plain = LanguageProcess(tiny_engine(scale=0.15), "Hello: 12+34=12+34=", **KINDS[kind] | {"max_tokens": 8})
    return speculate(plain, drafter(), verifier, HERE)


@contextmanager
def counted_engines(process) -> Iterator[Work]:
    """What all engines of a process did: passes, parts of them too, and positions that were fed to the end."""
    engines = [process.engine, *([process.drafter.engine] if isinstance(process.drafter, DraftModel) else [])]
    work, before = Work(), [(engine.counters.positions, engine.counters.passes) for engine in engines]
    yield work
    for engine, (positions, passes) in zip(engines, before, strict=True):
        work.evaluations += engine.counters.positions - positions
        work.calls += engine.counters.passes - passes


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
def test_it_is_a_process(process, check):
    if check.__name__ == "it_is_a_process":
        process.forget()  # a single token after a cached prompt takes no pass at all
    check(process, lambda: counted_engines(process))
