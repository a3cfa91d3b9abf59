"""ActQKV: a budget of all is plain attention, a smaller one sees what it says, and layers share one total."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.models import text, tiny_engine

from anystep.errors import UsageError
from anystep.language.accelerate import ActQKV
from anystep.language.accelerate.act_qkv import shared
from anystep.language.engine.llama import rotate


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(layers=3)


@pytest.mark.parametrize("window", [1000, 64, 7])
def test_a_budget_of_all_is_plain_attention(engine, window: int) -> None:
    tokens = text(200)
    plain = engine.forward(torch.tensor([tokens]), hidden=True)[0]
    ours = ActQKV(engine, 1.0, window=window, block=8, sinks=4, latest=16)
    torch.testing.assert_close(ours.read(tokens[:190]), plain[:190], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(ours.go_on(tokens[190:]), plain[190:], atol=2e-4, rtol=1e-4)
    assert ours.spent.attended == 200 * 201 // 2 and ours.spent.evaluations == 200


def test_a_window_sees_what_was_recalled_and_nothing_else(engine) -> None:
    tokens, new = text(160), text(12, seed=1)
    ours = ActQKV(engine, 0.4, block=8, sinks=4, latest=16)
    ours.read(tokens, whole=True)
    found = torch.cat([ours.read(new), ours.go_on(text(3, seed=2))])
    whole = torch.tensor([[*tokens, *new, *text(3, seed=2)]])
    layer = iter(range(3))

    def attend(which, q, k, v):
        assert which == next(layer)
        seen = torch.ones(175, 175, dtype=torch.bool).tril()
        seen[160:, :160] = False
        seen[160:, ours.recalled[which]] = True
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)

    with torch.inference_mode():
        wanted = engine.model(whole, None, attend=attend)[0, 160:]
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
    assert sum(map(len, ours.recalled)) <= 0.4 * 160 * 3 < sum(map(len, ours.recalled)) + 8


def test_stored_keys_are_those_without_rotation(engine) -> None:
    ours = ActQKV(engine)
    ours.read(text(50), whole=True)
    cos, sin = ours.rotary(torch.arange(50)[None])
    torch.testing.assert_close(rotate(ours.store[:, 2, :, :50], cos[0], sin[0]), ours.store[:, 0, :, :50])


def test_forgetting_goes_back_to_the_same_answer(engine) -> None:
    tokens, question = text(300), text(9, seed=4)
    ours = ActQKV(engine, 0.2, window=64, block=8, sinks=4, latest=16)
    ours.read(tokens)
    density = ours.density.clone()
    first = ours.read(question)
    ours.forget(300)
    ours.density = density
    assert torch.equal(ours.read(question), first)
    with pytest.raises(UsageError, match="forget"):
        ours.forget(1_000)


def test_anchors_are_the_last_token_and_those_that_stand_out(engine) -> None:
    q = torch.randn(4, 30, 8, generator=torch.Generator().manual_seed(0)) * 0.1 + 1.0
    q[:, 7] *= -1.0
    q[:, 21] *= -3.0  # lengths do not count, directions do
    probes = ActQKV(engine, anchors=3).probes(q)
    assert {tuple(p.flatten().tolist()) for p in probes.unbind(1)} == {
        tuple(q[:, i].flatten().tolist()) for i in (7, 21, 29)
    }


def test_a_block_that_one_probe_wants_is_found(engine) -> None:
    ours = ActQKV(engine, block=4)
    keys = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    probes = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(1)) * 0.1
    keys[1, 4, 2], probes[3, 1] = 9.0, 9.0  # one key, one head, one probe
    scores = ours.scores(probes, keys)
    assert scores.argmax() == 4 and scores[4] > 0.99 and scores[[0, 1, 2, 3, 5]].max() < 0.5


@given(st.integers(0, 400), st.lists(st.floats(0.01, 10.0), min_size=1, max_size=30), st.integers(0, 60))
def test_a_total_is_shared_out_whole(total: int, weights: list[float], most: int) -> None:
    w = np.array(weights)
    if total > most * len(w):
        with pytest.raises(UsageError, match="places hold"):
            shared(total, w, most)
        return
    found = shared(total, w, most)
    assert found.sum() == total and found.min() >= 0 and found.max() <= most
    order = np.argsort(w)
    assert (np.diff(found[order]) >= -1).all()  # the heavier never get less, but for rounding


def test_settings_that_cannot_be_meant_are_refused(engine) -> None:
    for bad in ({"budget": 0.0}, {"budget": 1.5}, {"block": 0}, {"anchors": 0}, {"latest": -1}):
        with pytest.raises(UsageError, match="ActQKV"):
            ActQKV(engine, **bad)
    with pytest.raises(UsageError, match="window"):
        ActQKV(tiny_engine(windows=(None, 8)))
    with pytest.raises(UsageError, match="nothing to read"):
        ActQKV(engine).go_on([])
    with pytest.raises(UsageError, match="nothing to read"):
        ActQKV(engine).read([])
    with pytest.raises(UsageError, match="do not fit"):
        ActQKV(tiny_engine(context=20)).read(text(21))
    with pytest.raises(UsageError, match="Tokens lie in"):
        ActQKV(engine).read([64])
