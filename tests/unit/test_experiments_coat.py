"""Row 169's experiment in small, with a model that has learned nothing: every clause is measured."""

from __future__ import annotations

from anystep.experiments import coat
from anystep.experiments.check import recorded
from anystep.language import load


def test_every_clause_is_measured() -> None:
    found = coat.run(seed=0, progress=lambda _: None, model=load("chainlm-2m"), problems=2, rounds=2)
    kept = recorded("coat")
    assert kept is not None and kept.passed
    strip = [c.clause.split("(")[0].split(" at ")[0] for c in found.checks]
    assert strip == [c.clause.split("(")[0].split(" at ")[0] for c in kept.checks]
    values = {c.clause: c for c in found.checks}
    assert values["facts that a node remembers and an ancestor had remembered"].passed
    assert values["runs that differ from MCTS with association off and weight 0"].passed
    assert values["recall of a hop's fact from the right partial derivation"].passed
