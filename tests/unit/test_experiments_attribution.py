"""Row 21's experiment in miniature: it has a check for every clause, and those that need no training pass."""

from anystep.experiments import abduct_act_predict
from anystep.experiments.check import recorded
from anystep.language.train.attribution import AttributionRecipe


def test_it_has_a_check_for_every_clause_and_the_exact_ones_pass(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe = AttributionRecipe(logs=30, tokens=1_000, warm=0)
    found = abduct_act_predict.run(progress=lambda line: None, n=6, recipe=recipe, replays=60)
    known = recorded("abduct_act_predict")
    assert known is not None and [c.op for c in found.checks] == [c.op for c in known.checks]
    replays, _, calls = found.checks
    assert replays.passed and calls.passed and "its suspects executed" in found.notes
    assert known.checks[0].passed and known.checks[2].passed and not known.passed
