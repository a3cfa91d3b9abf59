"""The fused model is the eager one, the compiled layers are the torch ones, and integer products are exact."""

import pytest
import torch

from anystep.language.engine.engine import Engine
from anystep.language.engine.fused import Fused, fuse
from anystep.language.engine.int8 import Int8Product, hadamard
from anystep.language.engine.native import library
from anystep.language.engine.native.layers import NativeBlock, NativeProduct, compiled
from anystep.language.engine.quantise import Normed, Single, quantise
from anystep.language.engine.shelf import shelve, shelved
from models import text, tiny_engine, tiny_model

SHAPES = {
    "llama": {},
    "untied": {"tied": False},
    "biased": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "windows": {"windows": (5, None)},
    "gemma": {
        "qk_norm": True,
        "sandwich": True,
        "gate": "gelu",
        "embed_scale": 8.0,
        "query_scale": 1.3,
        "near_theta": 500.0,
        "windows": (5, None),
    },
}
SIZE = {"dim": 64, "hidden": 96, "head_dim": 32, "scale": 0.2}


def plain(place, weight, bias, norm):
    return Normed(Single(weight), norm, bias)


@pytest.mark.parametrize("shape", SHAPES)
def test_fused_is_eager_in_one_pass_in_part_and_when_decoding(shape):
    eager = tiny_engine(**SIZE, **SHAPES[shape])
    fused = Engine(fuse(eager.model, plain), eager.tokenizer)
    tokens = torch.tensor([text(21, seed=1), text(21, seed=2)])
    assert (eager.forward(tokens) - fused.forward(tokens)).abs().max() < 1e-4
    mine, its = fused.model, eager.model
    assert (mine.blocks(mine.embed(tokens), start=1) - its.blocks(its.embed(tokens), start=1)).abs().max() < 1e-4
    prompt = text(40, seed=3)
    for engine in (eager, fused):
        with engine.open(engine.plan([prompt] * 3)) as session:
            for i in range(4):
                session.append([i, i + 1, i + 2])
            engine.seen = session.logits()
    assert (eager.seen - fused.seen).abs().max() < 1e-4


def random_product(turned, columns, bias, normed, seed=0):
    g = torch.Generator().manual_seed(seed)
    weight, gain = torch.randn(96, 64, generator=g), torch.rand(64, generator=g) + 0.5
    bias = torch.randn(96, generator=g) if bias else None
    eps = 1e-5 if normed else None
    return Int8Product.of(weight, torch.arange(columns) * 3, gain if normed else None, eps, bias, turned), weight, gain


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("columns", [0, 8])
@pytest.mark.parametrize("normed", [False, True])
def test_an_int8_product_is_the_sum_of_its_integers_and_its_columns(turned, columns, normed):
    product, weight, gain = random_product(turned, columns, True, normed)
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(5)) * 3
    y = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() if normed else x
    y = y * gain if normed else y
    rest = y.double().clone()
    rest[:, product.columns] = 0
    if turned:
        rest = (rest.view(-1, 32) @ hadamard(32).double()).view_as(rest)
    step = rest.abs().amax(1, keepdim=True) / 127
    levels = (rest / step).round()
    want = (levels @ product.weight.double().T) * step * product.scale.double() * 127 + product.bias
    kept = (weight * gain if normed else weight)[:, product.columns].half().double()
    want += (y / gain if normed else y)[:, product.columns].double() @ kept.T
    assert (product(x) - want).abs().max() < 2e-4 * want.abs().max()
    assert (product(x) - (y @ weight.T + product.bias)).abs().mean() < 0.02 * want.abs().mean()


@pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 integer dot products")
@pytest.mark.parametrize("rows", [1, 2, 5, 11, 12, 13, 30, 49])
def test_compiled_products_are_the_torch_ones_at_every_number_of_rows(rows):
    for turned, columns, bias, normed in [(0, 0, 0, 0), (1, 0, 1, 0), (0, 8, 0, 1), (1, 8, 1, 1)]:
        product, *_ = random_product(bool(turned), columns, bool(bias), bool(normed))
        x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows)) * 3
        mine, want = NativeProduct(product)(x), product(x)
        assert (mine - want).abs().max() < 2e-5 * want.abs().max()
        assert torch.equal(NativeProduct(product)(x[:1]), mine[:1])  # what else is in the batch changes nothing


@pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 integer dot products")
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_layers_are_the_torch_ones(shape):
    made = tiny_model(**SIZE, **SHAPES[shape])
    native, torched = compiled(quantise(made, "int8")), quantise(made, "int8")
    assert isinstance(native.layers[0], NativeBlock) and not isinstance(torched.layers[0], NativeBlock)
    x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(1))
    for layer in range(made.config.layers):
        mine, want = (m.blocks(x, start=layer, stop=layer + 1) for m in (native, torched))
        assert (mine - want).abs().max() < 0.02 * want.abs().max()  # a level may round the other way
        assert (mine - want).abs().mean() < 1e-3 * want.abs().mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_comes_off_its_shelf_as_it_was_put_there(shape, tmp_path):
    made, path = tiny_model(**SIZE, **SHAPES[shape]), tmp_path / "packed.int8"
    assert shelved(path, made.config) is None
    fused = quantise(made, "int8")
    shelve(made, fused, path)
    again, tokens = shelved(path, made.config), torch.tensor([text(20)])
    assert torch.equal(again.logits(again(tokens)), fused.logits(fused(tokens)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert shelved(path, tiny_model(layers=3, **SIZE).config) is None  # another shape
    path.write_bytes(path.read_bytes()[:-100])
    assert shelved(path, made.config) is None  # cut short


def test_shapes_that_the_kernels_do_not_fit_stay_with_torch():
    fused = compiled(quantise(tiny_model(dim=48, heads=3, kv_heads=1, head_dim=16, hidden=40), "int8"))
    assert isinstance(fused, Fused) and not any(isinstance(m, NativeBlock) for m in fused.modules())
    assert fused(torch.tensor([text(9)])).isfinite().all()
