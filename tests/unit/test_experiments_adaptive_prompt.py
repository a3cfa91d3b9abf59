"""Row 168's experiment in small, by a model that has learned none of the formats: every clause is measured."""

from __future__ import annotations

import pytest

from anystep.experiments import adaptive_prompt
from anystep.experiments.check import recorded
from anystep.language.engine.engine import Engine
from models import chain_engine


def test_every_clause_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_prompt, "VOTES", ((1,),) * 3)
    monkeypatch.setattr(adaptive_prompt, "AGAIN", ((2,),) * 3)
    monkeypatch.setattr(adaptive_prompt, "TRIES", 2)
    one = chain_engine()
    engine = Engine(one.model, one.tokenizer, name="other", generation=one.generation)
    found = adaptive_prompt.run(progress=lambda _: None, model=engine, problems=3, gym_model=None)
    kept = recorded("adaptive_prompt")
    assert kept is not None and found.row == kept.row == 168

    def words(clause: str) -> str:
        return "".join(c for c in clause if not c.isdigit())

    assert [words(c.clause) for c in found.checks] == [words(c.clause) for c in kept.checks if "gym" not in c.clause]
    left = next(c for c in found.checks if "leave the short template" in c.clause)
    assert left.passed
