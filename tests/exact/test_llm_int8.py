"""LLM.int8(): its products against integers and fractions, what its columns are, and that batching changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.experiments._planted import plant
from anystep.language import load
from anystep.language.accelerate.llm_int8 import (
    Int8Linear,
    Recipe,
    Seen,
    Work,
    convert,
    encode,
    linears,
    multiply,
    observe,
    product,
)
from anystep.language.engine.engine import Engine
from models import text, tiny_engine, tiny_model

ROWS = ("vector", "row", "tensor")


def kl(ours, theirs, tokens):
    p, q = (m.logits(m(tokens)).log_softmax(-1) for m in (theirs, ours))
    return float((p.exp() * (p - q)).sum(-1).mean())


def layer(inputs=40, outputs=24, bias=False, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**31), st.booleans(), st.booleans())
def test_the_product_is_that_of_the_decoded_values_computed_exactly(n, inputs, outputs, seed, rows, zero_point):
    draw = torch.Generator().manual_seed(seed)
    x = encode(torch.randn(n, inputs, generator=draw) + 1, rows, zero_point)
    w = encode(torch.randn(outputs, inputs, generator=draw), rows, zero_point)
    assert torch.equal(product(x.codes, w.codes), (x.codes.long() @ w.codes.long().T).int())
    levels = [m.codes.double() + m.zero.double() for m in (x, w)]
    whole = (levels[0] @ levels[1].T) * (x.scale * w.scale.T)  # exact: integers far below 2**53
    assert torch.equal(multiply(x, w), whole.float())


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("zero_point", [True, False])
def test_codes_are_the_nearest_and_zero_is_exact(rows, zero_point):
    torch.manual_seed(0)
    x = torch.randn(8, 50) * torch.logspace(-3, 3, 8)[:, None] + 0.5
    x[:, 0] = 0
    found = encode(x, rows, zero_point)
    assert found.codes.abs().max() <= 127 and (found.values[:, 0] == 0).all()
    assert ((found.values - x).abs() <= found.scale * (1.001 if zero_point else 0.501)).all()
    assert found.scale.shape == ((8, 1) if rows else (1, 1))
    assert (encode(torch.zeros(2, 3), rows, zero_point).values == 0).all()


def test_a_lopsided_range_is_covered_twice_as_finely_with_a_zero_point():
    torch.manual_seed(0)
    x = torch.rand(4, 4096)
    errors = [(encode(x, True, z).values - x).square().mean() for z in (False, True)]
    assert 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("columns", ["fixed", "row", "call"])
def test_it_is_the_paper_s_formula_column_by_column(columns):
    """Against the formula written out with loops, on a call in which two columns stick out, one of them once."""
    part, torch_x = layer(), torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    torch_x[:, 3] += 30
    torch_x[2, 7] = -9
    peak = torch.ones(40)
    peak[3] = 30
    found = Int8Linear(part, Recipe(columns=columns), Seen(peak, peak), work := Work())(torch_x)
    wide = torch.zeros(5, 40, dtype=torch.bool)
    if columns == "row":
        wide = torch_x.abs() >= 6
    else:
        wide[:, [3] if columns == "fixed" else [3, 7]] = True
    weight = part.weight.clone()
    own = weight.clone()
    if columns == "fixed":
        own[:, 3] = 0
    by_row = own.abs().amax(1) / 127
    codes = (own / by_row[:, None]).round()
    sixteen = codes * by_row[:, None]
    sixteen[:, 3] = weight[:, 3].half().float()
    for i in range(5):
        rest = [j for j in range(40) if not wide[i, j]]
        scale = float(torch_x[i, rest].abs().max() / 127)
        for k in range(24):
            total = sum(round(float(torch_x[i, j]) / scale) * int(codes[k, j]) for j in rest) * scale * float(by_row[k])
            total += sum(float(torch_x[i, j]) * float(sixteen[k, j]) for j in range(40) if wide[i, j])
            assert abs(total - float(found[i, k])) < 2e-3 * scale * 127, (i, k)
    assert work.wide == int(wide.sum()) * 24 and work.int8 + work.wide == 5 * 40 * 24


@pytest.mark.parametrize("columns", ["fixed", "row"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_row_s_result_does_not_depend_on_its_batch(columns, tied):
    model = tiny_model(tied=tied)
    done = convert(model, Recipe(threshold=2.5, columns=columns), observe(model, [text(60, 9)]))
    tokens = torch.tensor([text(24, i) for i in range(12)])
    together = model.logits(model(tokens))
    alone = torch.cat([model.logits(model(row[None])) for row in tokens])
    assert (together - alone).abs().max() < 1e-4 and 0.3 < done.work.share < 1


def test_columns_by_call_do_depend_on_the_batch():
    part = Int8Linear(layer(), Recipe(columns="call"))
    x = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    x[1, :20] = 8
    assert (part(x)[:1] - part(x[:1])).abs().max() > 1e-4


def test_a_planted_model_is_the_same_model_and_only_decomposition_survives_it():
    tokens = torch.tensor([text(48, i) for i in range(8)])
    plain, grown = tiny_model(), plant(tiny_model(), channels=2, factor=300.0)
    assert kl(grown, plain, tokens) < 1e-6
    seen = observe(grown, [text(64, 99)])
    lost = {}
    for name, recipe in {
        "vector": Recipe(threshold=0),
        "ours": Recipe(threshold=40.0),
        "call": Recipe(threshold=40.0, columns="call"),
        "dequantised": Recipe(threshold=40.0, copy=False),
    }.items():
        model = plant(tiny_model(), channels=2, factor=300.0)
        lost[name] = kl(convert(model, recipe, seen).model, plain, tokens)
    natural = kl(convert(tiny_model(), Recipe(threshold=0)).model, plain, tokens)
    assert lost["ours"] < 2 * natural and lost["call"] < 2 * natural
    assert lost["vector"] > 10 * natural and lost["dequantised"] > 2 * lost["ours"]


def test_biases_bytes_and_the_share_that_stays_in_int8():
    model = tiny_model(qkv_bias=True)
    seen = observe(model, [text(64, 3)])
    sizes = {name: part.weight.shape for name, part in linears(model).items()}
    tokens = torch.tensor([text(32)])
    before = model.logits(model(tokens))
    done = convert(model, Recipe(share=0.9), seen)
    after = done.model.logits(done.model(tokens))
    assert 0.9 <= done.work.share < 1 and F.cosine_similarity(before, after, dim=-1).min() > 0.99
    wide = {name: b // 10 for name, (_, b) in sizes.items()}
    assert done.fp16_bytes == sum(2 * a * b for a, b in sizes.values())
    assert done.bytes == sum(a * b + 4 * a + wide[n] * (2 * a + 8) for n, (a, b) in sizes.items())


def test_with_columns_by_row_the_share_is_of_values():
    model = tiny_model(dim=64, hidden=96)
    done = convert(model, Recipe(share=0.95, columns="row"), observe(model, [text(200, i) for i in range(4)]))
    model(torch.tensor([text(200, 50)]))
    assert 0.93 < done.work.share < 0.97


def test_an_engine_runs_a_converted_model_as_it_runs_any():
    engine = tiny_engine()
    model = copy.deepcopy(engine.model)
    convert(model, Recipe(threshold=3.0), observe(model, [text(64, 3)]))
    ours = Engine(model, engine.tokenizer)
    with ours.open(ours.plan([text(20), text(20)[:12]])) as session:
        logits = session.logits()
    whole = ours.forward(torch.tensor([text(20)]))[0, -1]
    assert (logits[0] - whole).abs().max() < 1e-4


def test_calls_that_cannot_be_meant():
    with pytest.raises(UsageError, match="observe"):
        convert(tiny_model(), Recipe())
    with pytest.raises(UsageError, match="vector"):
        Recipe(scales="column")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="threshold"):
        Recipe(threshold=-1.0)
    with pytest.raises(UsageError, match="fp32"):
        convert(convert(tiny_model(), Recipe(threshold=0)).model, Recipe(threshold=0))
    with pytest.raises(UsageError, match="fp32"):
        convert(load("chainlm-2m", weights="int8").model, Recipe(threshold=0))
    with pytest.raises(UsageError, match="share"):
        Recipe(share=1.5)
    with pytest.raises(UsageError, match="calibration"):
        convert(tiny_model(), Recipe(share=0.9, columns="call"))
