"""A process over int8 weights is a process like any, and speculation over it is plain decoding, token for token."""

import numpy as np
import pytest
import torch

from anystep import keys
from anystep.language import LanguageProcess
from anystep.language.accelerate import DraftModel, EarlyLayers, PromptLookup, Thrift, TrieLookahead, speculate
from anystep.language.engine.engine import Engine
from anystep.language.engine.native import library
from anystep.language.engine.native.layers import compiled
from anystep.language.engine.quantise import quantise
from anystep.language.engine.tokenizer import Alphabet
from anystep.ledger import Ledger, Limit
from anystep.testing import check_process, counted_torch
from models import SYMBOLS, tiny_model

SHAPES = {
    "llama": {},
    "windows": {"windows": (9, None), "tied": False},
    "gemma": {"qk_norm": True, "sandwich": True, "gate": "gelu", "windows": (9, None), "near_theta": 500.0},
    "no kernels": {"dim": 48, "head_dim": 12, "hidden": 40},
}
SIZE = {"dim": 64, "hidden": 96, "head_dim": 32, "scale": 0.15}


def int8_engine(**shape):
    return Engine(compiled(quantise(tiny_model(**SIZE | shape), "int8")), Alphabet(SYMBOLS), name="tiny int8")


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_a_process_like_any(shape):
    engine = int8_engine(**SHAPES[shape])
    process = LanguageProcess(engine, "12+34=", unit="step", stop="a", max_tokens=6)
    check_process(process, lambda: counted_torch(engine.model))


def done(process, seed, n=2):
    own = keys.roots(seed, (), np.arange(n))
    return process.step(process.start(own, Limit(Ledger(), "test")).states, own, Limit(Ledger(), "test"), "done")


@pytest.mark.skipif(library() is None, reason="torch's attention is the same up to rounding, which a level may go by")
@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("shape", list(SHAPES)[:3])
def test_speculation_is_plain_decoding_over_many_prompts(shape, temperature):
    engine = int8_engine(**SHAPES[shape])
    for i in range(20):
        prompt = f"{i * 7}+{i}=" * (1 + i % 4)
        plain = LanguageProcess(engine, prompt, unit="completion", temperature=temperature, max_tokens=16)
        drafter = [PromptLookup(), TrieLookahead(), EarlyLayers(1), DraftModel(int8_engine(scale=0.14), width=3)][i % 4]
        fast = speculate(plain, drafter, thrift=Thrift(fixed=5))
        one, other = done(plain, i), done(fast, i)
        assert one.states == other.states and np.array_equal(one.logp, other.logp)
        assert fast.rounds.looks > 0


def test_threads_change_no_bit():
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            plain = LanguageProcess(int8_engine(), "12+34=", unit="completion", max_tokens=40)
            found.append(done(plain, 0, n=6))
    finally:
        torch.set_num_threads(before)
    assert found[0].states == found[1].states and np.array_equal(found[0].logp, found[1].logp)
