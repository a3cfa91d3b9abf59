"""Speculating processes obey every law of a process, and say what the plain one says."""

import pytest
from test_language_process import KINDS

from anystep.language import LanguageProcess
from anystep.language.accelerate import PromptLookup, Thrift, speculate
from anystep.testing import counted_torch, process_checks
from models import tiny_engine


@pytest.fixture(scope="module", params=KINDS)
def process(request):
    options = KINDS[request.param] | {"max_tokens": 8}
    plain = LanguageProcess(tiny_engine(scale=0.15), "Hello: 12+34=12+34=", **options)
    return speculate(plain, PromptLookup(), thrift=Thrift(slope=0.05, crowd=1))


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
def test_it_is_a_process(process, check):
    if check.__name__ == "it_is_a_process":
        process.forget()  # a single token after a cached prompt takes no pass at all
    check(process, lambda: counted_torch(process.engine.model))
