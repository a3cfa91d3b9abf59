"""Rows 55 and 175, small: every clause has its check, and what can be exact is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep.diffusion.models import digits
from anystep.experiments import Result, noise_search, soft_value_decoding
from anystep.experiments._soft_values import goes_on


def test_soft_value_decoding_checks_every_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_value_decoding, "SITES", 8)
    monkeypatch.setattr(soft_value_decoding, "STEPS", 6)
    small = soft_value_decoding.run(n=4, branch=2, draws=500, probes=2, progress=lambda line: None)
    assert small.row == 55 and Result.from_json(small.to_json()).name == "soft_value_decoding"
    assert len(small.checks) == 15
    for words in ("TV to the tilted law", "median reward", "log-likelihood", "gradient", "M=1"):
        assert any(words in check.clause for check in small.checks), words
    certain = [c for c in small.checks if "enumerated" in c.clause or "gradient" in c.clause or "M=1" in c.clause]
    assert len(certain) == 8 and all(c.passed for c in certain), [str(c) for c in certain]
    assert all(c.passed for c in small.checks if "network rows of" in c.clause)


def test_the_chosen_child_s_law_is_the_mean_over_counts() -> None:
    p, worth = np.array([0.5, 0.3, 0.2]), np.array([1.0, 20.0, 0.01])
    draws = np.random.default_rng(0).multinomial(4, p, 200_000) * worth
    simulated = (draws / draws.sum(1, keepdims=True)).mean(0)
    assert np.allclose(goes_on(p, worth, 4), simulated, atol=0.005)
    assert np.allclose(goes_on(p, worth, 1), p, atol=1e-3)
    assert np.allclose(goes_on(p, np.ones(3), 16), p, atol=1e-9)


def test_a_digit_is_likelier_than_noise_and_likelier_as_what_it_is() -> None:
    from anystep.diffusion.models import digits_data

    real = digits_data("held-out")
    x, label = real.images[:24], real.labels[:24]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    right, wrong, nonsense = (
        soft_value_decoding.log_likelihood(digits(), images, classes, probes=4, steps=10).mean()
        for images, classes in ((x, label), (x, (label + 1) % 10), (noise, label))
    )
    assert right > wrong + 5 and right > nonsense + 50


def test_noise_search_checks_every_clause() -> None:
    small = noise_search.run(sets=1, n=12, steps=13, sizes=(1, 4), progress=lambda line: None)
    assert small.row == 175 and Result.from_json(small.to_json()).name == "noise_search"
    for words in ("relative change", "random:", "zero-order:", "paths:", "held-out", "forward passes", "cells"):
        assert any(words in check.clause for check in small.checks), words
    assert all(c.passed for c in small.checks if "forward passes" in c.clause)
