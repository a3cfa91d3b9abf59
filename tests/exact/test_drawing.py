"""The compiled draw against softmax and inverse distribution in double precision as numpy works them out."""

import numpy as np
import pytest
import torch

from anystep import keys
from anystep.language.engine import sampling
from anystep.language.engine.native import drawing, library

needs_kernels = pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 dot products")


def plainly(logits, u, temperature):
    p = sampling.distribution(logits, temperature)
    tokens = keys.choose(p, u)
    return tokens, p[np.arange(len(p)), tokens]


@needs_kernels
@pytest.mark.parametrize(("vocab", "rows"), [(1, 8), (7, 4000), (64, 4000), (512, 1000), (1027, 800), (49_152, 60)])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.05, 4.0])
def test_tokens_are_those_of_double_precision_and_shares_agree(vocab, rows, temperature):
    g = torch.Generator().manual_seed(vocab)
    logits = torch.randn(rows, vocab, generator=g) * 3
    u = np.random.default_rng(vocab).random(rows)
    tokens, shares = drawing.drawn(logits, u, temperature)
    expected, p = plainly(logits, u, temperature)
    assert (tokens == expected).all()
    assert np.abs(shares / p - 1).max() < 2e-14


@needs_kernels
def test_u_at_the_edges_of_a_token_is_that_token():
    """Just within both ends of each of 500 intervals, as exact as their width lets it be told."""
    logits = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    edges = np.concatenate([[0.0], sampling.distribution(logits, 1.0)[0].cumsum()])
    some = np.random.default_rng(0).choice(2000, 500, replace=False)
    for u in (edges[some] + 1e-13, edges[some + 1] - 1e-13):
        assert (drawing.drawn(logits.expand(500, -1), u, 1.0)[0] == some).all()
    last = drawing.drawn(logits, np.array([np.nextafter(1.0, 0.0)]), 1.0)[0]
    assert last == 1999 and drawing.drawn(logits, np.zeros(1), 1.0)[0] == 0


@needs_kernels
def test_what_has_no_mass_is_never_drawn():
    logits = torch.full((6, 1300), -torch.inf)
    logits[:, 700], logits[:, 703] = 0.0, -1e-3
    tokens, shares = drawing.drawn(logits, np.array([0.0, 0.3, 0.5, 0.7, 0.99, np.nextafter(1.0, 0.0)]), 1.0)
    assert tokens.tolist() == [700, 700, 700, 703, 703, 703] and np.allclose(shares, 0.5, atol=1e-3)
    steep = torch.zeros(1, 64)
    steep[0, 5] = 1e4  # the others are 0 in double precision too
    assert drawing.drawn(steep, np.array([0.999]), 1.0) == (5, 1.0)


@needs_kernels
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_no_distribution_says_so_and_leaves_the_others_alone(bad):
    logits = torch.randn(3, 600, generator=torch.Generator().manual_seed(1))
    logits[1, 599 if bad != -torch.inf else slice(None)] = bad
    u = np.array([0.2, 0.5, 0.9])
    with np.errstate(invalid="ignore"):
        expected, p = plainly(logits, u, 1.0)
    tokens, shares = drawing.drawn(logits, u, 1.0)
    assert (tokens == expected).all() and np.isnan(shares[1]) and np.isnan(p[1])
    assert np.allclose(shares[[0, 2]], p[[0, 2]], rtol=1e-13)


@needs_kernels
def test_rows_may_lie_apart_and_what_does_not_fit_is_drawn_without_the_kernel(monkeypatch):
    wide = torch.randn(5, 3000, generator=torch.Generator().manual_seed(2))
    u = np.random.default_rng(3).random(5)
    part = wide[:, 100:1100]
    assert drawing.draws(part) and not drawing.draws(part.double()) and not drawing.draws(wide[:, ::2])
    assert (drawing.drawn(part, u, 1.0)[0] == drawing.drawn(part.contiguous(), u, 1.0)[0]).all()
    with pytest.raises(ValueError, match="each of 5 rows"):
        drawing.drawn(part, u[:4], 1.0)
    ours = sampling.draw(part, u, 0.7)
    monkeypatch.setattr(sampling, "draws", lambda logits: False)
    plain = sampling.draw(part, u, 0.7)
    assert (ours[0] == plain[0]).all() and np.allclose(ours[1], plain[1], rtol=1e-12)


def test_uniforms_are_those_of_their_keys_to_the_last_bit():
    rng = np.random.default_rng(0)
    some, at = (rng.integers(0, 2**64, 5000, dtype=np.uint64) for _ in range(2))
    assert (drawing.uniforms(some, at) == keys.uniforms(some, at)).all()
    small = np.arange(5000, dtype=np.uint64)
    assert (drawing.uniforms(some, small) == keys.uniforms(some, small)).all()
    if library() is not None:
        with pytest.raises(ValueError, match="A position for each key"):
            drawing.uniforms(some, at[:3])


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-20, 1e-18, 1e-10, 1e-8])
def test_the_coldest_draw_is_the_largest_logit(temperature):
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * 10
    tokens, logp = sampling.draw(logits, np.full(4, 0.5), temperature)
    assert tokens.tolist() == logits.argmax(-1).tolist() and np.allclose(logp, 0)
