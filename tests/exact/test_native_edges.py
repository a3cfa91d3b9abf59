"""The compiled kernels beside the torch forms where inputs are no numbers, threads come and go, and callers err."""

import threading
from pathlib import Path

import pytest
import torch

from anystep.errors import UsageError
from anystep.language.engine.int8 import Int8Product
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


def int8_model():
    return compiled(quantise(tiny_model(**SIZE), "int8"))


def test_kernels_are_not_given_what_they_would_read_wrongly():
    model = int8_model()
    x = torch.randn(1, 3, 64)
    want = model.norm(model.blocks(x))
    assert torch.equal(model.norm(model.blocks(x.double())), want)
    assert (model.logits(want.half()) - model.logits(want)).abs().max() < 0.1 * model.logits(want).abs().max()
    for call in (model.blocks, model.norm, model.logits):
        with pytest.raises(ValueError, match="64"):
            call(x[..., :32])
    with pytest.raises(ValueError, match="128"):
        model.blocks(x, attend=lambda layer, q, k, v: q[:, :1])
    for move in (model.half, model.double, lambda: model.to("meta")):
        with pytest.raises(UsageError, match="cannot be moved"):
            move()
    assert torch.equal(model.norm(model.blocks(x)), want)


def test_a_model_elsewhere_keeps_its_torch_layers():
    fused = quantise(tiny_model(**SIZE), "int8").to("meta")
    kinds = [type(module) for module in fused.modules()]
    assert [type(module) for module in compiled(fused).modules()] == kinds


def test_lists_that_lie_otherwise_are_refused_and_keys_stay_alive():
    keys = torch.randn(1, 2, 2, 20, 32)
    config = tiny_config(heads=4, kv_heads=2, head_dim=32, layers=1)
    q, k, v = (torch.randn(1, heads, 1, 32) for heads in (4, 2, 2))
    across = torch.randn(1, 2, 2, 32, 20).transpose(3, 4)
    for stretch in [(across, 0, 20), (keys, 0, 21), (keys, -1, 3), (keys[..., ::2], 0, 3)]:
        with pytest.raises(ValueError, match="side by side"):
            by_lists(config, [([stretch], (keys, 19))])
    attend = by_lists(config, [([(keys, 0, 19)], (keys, 19))])
    for wrong in [(q[..., :16], k, v), (q[:, :3], k, v), (q, k[:, :1], v), (q.expand(2, -1, -1, -1), k, v)]:
        with pytest.raises(ValueError, match="Lists for 1"):
            attend(0, *wrong)
    want = attend(0, q, k, v)
    assert torch.equal(attend(0, q.double(), k.double(), v.double()), want.double())
    attend = by_lists(config, [([(keys.clone(), 0, 19)], (keys, 19))])  # nobody else has the clone
    torch.full((10, *keys.shape), torch.nan)
    assert torch.equal(attend(0, q, k, v), want)


def test_every_query_sees_something_whatever_the_shape_says():
    for wrong in ({"windows": (-3, None)}, {"windows": (0, None)}, {"heads": 5}, {"heads": 1}):
        with pytest.raises(ValueError):
            tiny_config(**wrong)
