"""Row 161's experiment, small: a check for every clause, and those that are exact pass."""

from __future__ import annotations

import pytest

from anystep.experiments import Result, consistency_check_loop
from models import chain_engine


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency_check_loop, "FIVE", (0, 1))
    monkeypatch.setattr(consistency_check_loop, "VOTES", (1, 4))
    small = consistency_check_loop.run(model=chain_engine(), problems=2, planted=10, progress=lambda line: None)
    assert small.row == 161 and Result.from_json(small.to_json()).name == "consistency_check_loop"
    exact = [c for c in small.checks if c.op == "=="]
    assert len(exact) == 6 and all(c.passed for c in exact), [str(c) for c in exact]
    for words in ("flagged", "false alarms", "one-shot vote", "gate alone", "oracle", "stored runs"):
        assert any(words in c.clause for c in small.checks), words
