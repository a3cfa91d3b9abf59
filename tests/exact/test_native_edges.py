"""The compiled kernels beside the torch forms where inputs are no numbers, threads come and go, and callers err."""

import threading
from pathlib import Path

import pytest
import torch

from anystep.language.engine.int8 import Int8Product
from anystep.language.engine.llama import Llama
from anystep.language.engine.native import library
from anystep.language.engine.native.attention import by_lists
from anystep.language.engine.native.layers import NativeProduct, compiled
from anystep.language.engine.quantise import quantise
from models import tiny_config, tiny_model

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 dot products")
SIZE = {"dim": 64, "hidden": 96, "head_dim": 32, "scale": 0.2}


def product(outputs=64, inputs=64, **options):
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1))
    return Int8Product.of(weight, torch.arange(4) * 5, **options)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("turned", [False, True])
def test_a_row_that_is_no_number_says_so_and_leaves_the_others_alone(bad, turned):
    native, x = NativeProduct(product(turned=turned)), torch.randn(14, 64, generator=torch.Generator().manual_seed(2))
    want = native(x)
    for at in (1, 17, 63):
        hurt = x.clone()
        hurt[3, at] = bad
        out = native(hurt)
        assert not out[3].isfinite().any()
        assert torch.equal(out[:3], want[:3]) and torch.equal(out[4:], want[4:])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_key_that_is_no_number_reaches_those_who_see_it_and_nobody_else(bad):
    keys = torch.randn(1, 2, 1, 30, 32, generator=torch.Generator().manual_seed(3))
    keys[0, 0, 0, 4] = bad
    config = tiny_config(heads=2, kv_heads=1, head_dim=32, layers=1)
    q, k, v = (torch.randn(1, heads, 2, 32, generator=torch.Generator().manual_seed(heads)) for heads in (2, 1, 1))
    seen = [([(keys, 0, 20)], (keys, 20)), ([(keys, 5, 15)], (keys, 21))]
    out = by_lists(config, seen)(0, q, k, v)
    assert out[0, :, 0].isnan().all(-1).any() and out[0, :, 1].isfinite().all()


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_threads_that_end_give_back_what_they_held():
    native, x = NativeProduct(product(32, 32 * 64)), torch.randn(512, 32 * 64)  # 1 MB of levels a thread

    def go():
        thread = threading.Thread(target=native, args=(x,))
        thread.start()
        thread.join()

    for _ in range(10):
        go()
    before = resident()
    for _ in range(60):
        go()
    assert resident() - before < 30 << 20
