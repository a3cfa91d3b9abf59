"""Compiled attention over a row's own keys against a softmax written out, alone and merged with what was seen."""

import pytest
import torch

from anystep.language.engine.native import library
from anystep.language.engine.native.attention import attend_own, attends

needs_kernels = pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 dot products")


@needs_kernels
@pytest.mark.parametrize("width", [16, 64, 80])
@pytest.mark.parametrize("window", [None, 1, 7])
@pytest.mark.parametrize("shared", [0, 9])
def test_it_is_softmax_over_all_that_a_query_may_see(width, window, shared):
    g = torch.Generator().manual_seed(width + shared)
    rows, heads, kinds, size = 5, 6, 2, 48
    q, k, v = (torch.randn(rows, h, 1, width, generator=g) * 2 for h in (heads, kinds, kinds))
    keys = torch.randn(2, rows + 2, kinds, size, width, generator=g)
    own = torch.tensor([0, 3, 15, 16, 40])
    far = torch.randn(2, kinds, shared, width, generator=g) if shared else None
    want, norms = [], []
    for r in range(rows):
        for h in range(heads):
            kind, first = h // (heads // kinds), max(0, int(own[r]) - window + 1) if window else 0
            past = [torch.cat([keys[i, r, kind, : own[r]], new[r, kind]])[first:] for i, new in ((0, k), (1, v))]
            if far is not None:
                past = [torch.cat([far[i, kind], past[i]]) for i in (0, 1)]
            scores = (past[0] @ q[r, h, 0]).double() / width**0.5
            want.append(scores.softmax(0).float() @ past[1])
            norms.append(scores.logsumexp(0).float())
    other = None
    if far is not None:
        groups = [far[i].repeat_interleave(heads // kinds, 0) for i in (0, 1)]
        scores = torch.einsum("rhd,htd->rht", q[:, :, 0], groups[0])
        scores = scores / width**0.5
        seen = torch.einsum("rht,htd->rhd", scores.softmax(-1), groups[1])
        other = seen[:, :, None], scores.logsumexp(-1)[..., None]
    before = keys.clone()
    out, norm = attend_own(q, k, v, keys, own, window, other)
    assert (out.view(-1, width) - torch.stack(want)).abs().max() < 2e-5
    assert (norm.view(-1) - torch.stack(norms)).abs().max() < 2e-5
    for r in range(rows):
        assert torch.equal(keys[0, r, :, own[r]], k[r, :, 0]) and torch.equal(keys[1, r, :, own[r]], v[r, :, 0])
        before[:, r, :, own[r]] = keys[:, r, :, own[r]]
    assert torch.equal(before, keys)  # nothing else was written


@needs_kernels
def test_what_a_row_has_may_weigh_nothing_beside_what_it_saw():
    q, k, v = torch.full((1, 1, 1, 16), 30.0), torch.full((1, 1, 1, 16), -30.0), torch.zeros(1, 1, 1, 16)
    other = torch.ones(1, 1, 1, 16), torch.full((1, 1, 1), 5000.0)
    out, norm = attend_own(q, k, v, torch.zeros(2, 1, 1, 4, 16), torch.tensor([0]), None, other)
    assert torch.equal(out, other[0]) and norm.item() == 5000.0


def test_widths_that_do_not_fit_stay_with_torch():
    assert not attends(torch.zeros(1, 2, 1, 1, 4, 8)) and not attends(torch.zeros(1, 2, 1, 1, 4, 64).half())
