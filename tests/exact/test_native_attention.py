"""Attention by lists of keys: a softmax written out, and a query's result that hangs on nothing but its list."""

import pytest
import torch

from anystep.language.engine.engine import Engine
from anystep.language.engine.native import library
from anystep.language.engine.native.attention import attends, by_lists
from anystep.language.engine.native.layers import compiled
from anystep.language.engine.quantise import quantise
from anystep.language.engine.trees import Tree
from models import text, tiny_config, tiny_engine, tiny_model

needs_kernels = pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 dot products")
SIZE = {"dim": 64, "hidden": 96, "head_dim": 32, "scale": 0.2}


@needs_kernels
@pytest.mark.parametrize("width", [16, 64, 80])
@pytest.mark.parametrize("window", [None, 1, 7, 33])
def test_it_is_softmax_over_the_listed_keys(width, window):
    g = torch.Generator().manual_seed(width)
    heads, kinds, layers = 6, 2, 3
    q, k, v = (torch.randn(1, h, 4, width, generator=g) * 2 for h in (heads, kinds, kinds))
    far, near = (torch.randn(layers, 2, kinds, size, width, generator=g) for size in (40, 60))
    lists = [[], [(far, 3, 30)], [(far, 0, 40), (near, 0, 16)], [(near, 20, 1), (near, 25, 9), (far, 39, 1)]]
    goes = [(near, 50 + i) for i in range(4)]
    config = tiny_config(heads=heads, kv_heads=kinds, head_dim=width, layers=layers, windows=(None, window, None))
    before = near.clone()
    out = by_lists(config, list(zip(lists, goes, strict=True)))(1, q, k, v)
    for i, stretches in enumerate(lists):
        assert torch.equal(near[1, :, :, 50 + i], torch.stack([k[0, :, i], v[0, :, i]]))
        for h in range(heads):
            kind = h // (heads // kinds)
            parts = [keys[1, :, kind, first : first + count] for keys, first, count in stretches]
            seen = torch.cat([*parts, torch.stack([k[0, kind, i], v[0, kind, i]])[:, None]], 1)
            seen = seen[:, -window:] if window else seen
            want = ((seen[0] @ q[0, h, i]).double() / width**0.5).softmax(0).float() @ seen[1]
            assert (out[0, h, i] - want).abs().max() < 2e-5
    near[1, :, :, 50:54] = before[1, :, :, 50:54]
    assert torch.equal(near, before)  # nothing else was written


def one_by_one(engine, prompt, more):
    with engine.open(engine.plan([prompt])) as session:
        for token in more:
            session.append([token])
        return session.states(0)


@needs_kernels
@pytest.mark.parametrize("windows", [(), (5, None)])
def test_a_position_is_the_same_to_the_last_bit_however_it_came(windows):
    model = compiled(quantise(tiny_model(**SIZE, windows=windows), "int8"))
    fresh = lambda: Engine(model, tiny_engine().tokenizer)  # noqa: E731
    prompt, more = text(70, seed=1), text(12, seed=2)
    want = one_by_one(fresh(), prompt, more)
    assert torch.equal(one_by_one(fresh(), (*prompt, *more)[:33], (*prompt, *more)[33:]), want)  # in other portions
    engine = fresh()
    with engine.open(engine.plan([prompt] * 5 + [text(50, seed=3)])) as session:  # as forks, beside another
        for i, token in enumerate(more):
            session.append([token, *text(5, seed=9 + i)])
        assert torch.equal(session.states(0), want)
    engine = fresh()
    with engine.open(engine.plan([prompt, text(20, seed=4)])) as session:  # in trees
        at = 0
        while at < len(more):
            chain = more[at : at + 4]
            tree = Tree.of([(1, 2, 3), chain, (chain[0], 7)])
            session.look({0: tree, 1: Tree.chain(text(3, seed=at))})
            nodes = tree.path([i for i in range(len(tree)) if [tree.tokens[j] for j in tree.path(i)] == list(chain)][0])
            session.keep({0: nodes})
            at += len(chain)
        assert torch.equal(session.states(0), want)
    head = model.logits(want)
    assert torch.equal(torch.cat([model.logits(row[None]) for row in want]), head)


def test_keys_that_do_not_fit_stay_with_torch():
    assert not attends(torch.zeros(1, 2, 1, 4, 8)) and not attends(torch.zeros(1, 2, 1, 4, 64).half())
