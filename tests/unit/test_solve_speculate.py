"""`solve(..., speculate=...)` and `anystep solve --speculate`: the same answer, from a journal too."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from anystep import solve, solve_many
from anystep.cli.app import app
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.accelerate import PromptLookup
from anystep.solve import engine_for
from anystep.tasks.chains import chains

ASKED = "C6 4 7 4 6>1?"


def test_it_answers_what_it_would_have_answered():
    engine = engine_for("chainlm-2m")
    for method in ("greedy", "self_consistency(n=4)"):
        want = solve(ASKED, "chainlm-2m", method, seed=2, chat=False)
        for speculate in ("lookahead", PromptLookup()):
            engine.cache.trim(0)
            found = solve(ASKED, "chainlm-2m", method, seed=2, chat=False, speculate=speculate)
            assert found.text == want.text and found.cost.generated == want.cost.generated
    many = solve_many(chains(3, "test", 0), "chainlm-2m", speculate="lookahead")
    assert [a.text for a in many] == [a.text for a in solve_many(chains(3, "test", 0), "chainlm-2m")]


def test_what_it_cannot_mean_is_refused_in_one_line():
    engine = engine_for("chainlm-2m")
    for model, wrong, line in (
        ("chainlm-2m", "crystal ball", "lookahead"),
        ("http://127.0.0.1:9/v1#it", "lookahead", "a model that runs here"),
        (LanguageProcess(engine, ASKED), "lookahead", "already made"),
        ("chainlm-2m", 7, "speculate\\(process"),
    ):
        with pytest.raises(UsageError, match=line) as error:
            solve(ASKED, model, "greedy", speculate=wrong)
        assert "\n" not in str(error.value)


def test_the_command_takes_it_and_its_journal_keeps_it(tmp_path):
    run = CliRunner()
    asked = ["solve", ASKED, "--model", "chainlm-2m", "--json", "--quiet"]
    want = run.invoke(app, asked)
    kept = tmp_path / "run.jsonl"
    found = run.invoke(app, [*asked, "--speculate", "lookahead", "--journal", str(kept)])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["text"] == json.loads(want.stdout)["text"]
    assert "lookahead" in kept.read_text()
    again = run.invoke(app, ["resume", str(kept), "--json", "--quiet"])
    assert again.exit_code == 0 and json.loads(again.stdout)["text"] == json.loads(want.stdout)["text"]
    wrong = run.invoke(app, [*asked, "--speculate", "crystal"])
    assert isinstance(wrong.exception, UsageError)  # which the entry point turns into exit code 2
