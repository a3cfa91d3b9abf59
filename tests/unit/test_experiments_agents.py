"""Rows 154 and 113, small and with models that know nothing: every clause is measured, and the exact ones hold."""

from __future__ import annotations

import numpy as np
import pytest

from anystep.experiments import Result, hypothesis_refinement, plangen
from anystep.experiments.hypothesis_refinement import by_rule
from anystep.experiments.plangen import Bench, calls, f1
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.train.chainlm import untrained
from anystep.language.train.induction import InductionRecipe
from anystep.language.train.planners import PlannerRecipe
from anystep.tasks.chains import Alphabet as Symbols
from anystep.tasks.planning import planning
from anystep.tasks.rules import drawn


def engine(recipe: InductionRecipe | PlannerRecipe) -> Engine:
    return Engine(untrained(recipe.config, 1).eval(), Alphabet(Symbols().symbols), name="tiny")


@pytest.fixture(scope="module")
def tiny() -> dict[str, Engine]:
    some = engine(PlannerRecipe(dim=32, layers=1))
    return {"planner": some, "extractor": some, "guided": some, "unguided": some}


def test_hypothesis_refinement_measures_every_clause() -> None:
    some = engine(InductionRecipe(dim=32, layers=1))
    found = hypothesis_refinement.run(0, lambda line: None, some, some, problems=2)
    assert found.row == 154 and Result.from_json(found.to_json()).name == "hypothesis_refinement"
    words = ("direct prompting's", "vote@", "more proposals", "more rounds", "fewer seen", "model applying", "ablation")
    assert all(any(w in c.clause for c in found.checks) for w in words)
    exact = [c for c in found.checks if c.op == "=="]
    assert len(exact) == 3 and exact[-1].passed, "the best of all that were proposed answers, whoever proposes"
    assert all(share in found.notes for share in ("12.5%", "25.0%", "50.0%"))


def test_problems_of_one_rule_are_one_item() -> None:
    problems = drawn(12, "dev", each=4)
    groups = by_rule(problems, np.arange(12.0))
    assert sum(map(len, groups)) == 12 and 3 <= len(groups) < 12


def test_plangen_measures_every_clause(tiny: dict[str, Engine]) -> None:
    found = plangen.run(0, lambda line: None, tiny, problems=2, rounds=1)
    assert found.row == 113 and Result.from_json(found.to_json()).name == "plangen"
    for words in ("best of n: guided", "tree: guided", "rebase: guided", "top complexity", "calls", "oracle", "F1"):
        assert any(words in c.clause for c in found.checks), words


def test_calls_are_plans_verifications_and_one_extraction(tiny: dict[str, Engine]) -> None:
    bench = Bench(tiny, planning(2, "dev"), 0)
    for guided, more in ((True, 0), (False, 1)):
        paid = calls(bench.fixed("best of n", guided, more))
        most = 2 * (5 + more) + guided  # failed plans are not verified
        assert (paid <= most).all() and (paid >= 5 + more).all()


def test_f1_is_the_usual_one() -> None:
    found = f1(np.array([3.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert found.value == pytest.approx(8 / 10) and found.low <= found.value <= found.high
