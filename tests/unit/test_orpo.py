"""Preferences from labels, and the loss against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from anystep.errors import UsageError
from anystep.language.engine.llama import Config
from anystep.language.train.chainlm import untrained
from anystep.language.train.orpo import Orpo, Preference, loss_of, mean_logp, orpo, preferences
from anystep.tasks.chains import Alphabet

ALPHABET = Alphabet()
SMALL = Config(len(ALPHABET), 32, 1, 2, 2, 64, 16, context=16)


def test_the_chosen_has_the_better_steps_and_the_right_end() -> None:
    chains, right = ["lucky", "good", "off", "bad"], [True, True, False, False]
    steps = [[True, False], [True, True], [True, False], [False, None]]
    found = list(preferences("p?", chains, right, steps))
    assert found == [Preference("p?", "good", "off"), Preference("p?", "good", "bad")]
    assert [p.chosen for p in preferences("p?", chains, right)] == ["lucky", "good"]
    assert not list(preferences("p?", chains, right, [[True]] * 4))  # no mean label above another
    assert not list(preferences("p?", chains, [False] * 4)) and not list(preferences("p?", chains, [True] * 4))


def test_the_loss_is_the_papers() -> None:
    good, bad = torch.tensor([-0.2, -1.0]), torch.tensor([-0.5, -0.1])

    def odds(x: float) -> float:
        return math.exp(x) / (1 - math.exp(x))

    ratios = [odds(g) / odds(b) for g, b in zip(good.tolist(), bad.tolist(), strict=True)]
    expected = 0.6 + 0.3 * sum(math.log(1 + 1 / r) for r in ratios) / 2
    assert loss_of(good, bad, 0.3).item() == pytest.approx(expected, abs=1e-5)


def test_mean_logp_is_the_continuations_alone() -> None:
    model = untrained(SMALL, 0).eval()
    with torch.no_grad():
        found, read = mean_logp(model, ALPHABET, [("a?", "bb."), ("abc?", "d.")])
        tokens = torch.tensor([ALPHABET.encode("abc?d.")])
        logs = model.logits(model(tokens)).log_softmax(-1)[0]
    plain = [logs[i - 1, tokens[0, i]].item() for i in (4, 5)]
    assert found[1].item() == pytest.approx(sum(plain) / 2, abs=1e-5) and read == 16


def test_it_learns_to_prefer() -> None:
    model, pairs = untrained(SMALL, 0), [Preference("a?", "b.", "c."), Preference("d?", "c.", "b.")]
    with torch.no_grad():
        before = mean_logp(model, ALPHABET, [("a?", "b."), ("a?", "c.")])[0]
    recipe = Orpo(tokens=12_000, batch=4, matrix_rate=3e-3, other_rate=4e-3)
    cost = orpo(model, ALPHABET, pairs, recipe, lambda _: None)
    with torch.no_grad():
        after = mean_logp(model, ALPHABET, [("a?", "b."), ("a?", "c.")])[0]
    assert (after[0] - after[1]).item() > (before[0] - before[1]).item() + 0.5 and cost.tokens >= 12_000
    with pytest.raises(UsageError, match="no preference to learn from"):
        orpo(model, ALPHABET, [], recipe)
