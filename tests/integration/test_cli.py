"""The command as it is typed: streams, exit codes, JSON, bad input, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import anystep
import toy_adder
from anystep.bench import Report
from anystep.cli import app, main
from anystep.testing.server import FakeServer, status

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_adder.install(monkeypatch)


def run(*args: str, code: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after `code`."""
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nfrom anystep.cli import main\nsys.exit(main())", *args],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment(),
        timeout=120,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", "COLUMNS": "80"}


TOY = "import toy_adder; toy_adder.install()"


def test_the_answer_is_on_standard_output_and_all_else_on_standard_error() -> None:
    done = run("solve", "What is 5 + 7?", "--model", "adder", "--method", "self_consistency(n=16)", code=TOY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ".. 12\n"
    assert "16 of 16 finished; stopped because finished" in done.stderr
    assert "spent 128 tokens (80 prompt, 48 generated)" in done.stderr


def test_quiet_says_nothing_else() -> None:
    done = run("solve", "-", "--model", "adder", "--quiet", code=TOY, stdin="What is 5 + 7?")
    assert (done.stdout, done.stderr, done.returncode) == (".. 12\n", "", 0)


@pytest.mark.parametrize("more", [[], ["--quiet"], ["--json"], ["--quiet", "--json"]])
def test_what_a_server_says_cannot_write_to_the_terminal(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    evil = "no\x1b]0;owned\x07 \x1b[31mred\x9b2J\rgone"
    with FakeServer(faults=status(400, evil)) as server:
        assert main(["solve", "What?", "--model", f"{server.url}#toy", *more]) == 1
    shown = capsys.readouterr()
    assert "something" not in shown.err and "owned" in shown.out + shown.err
    assert not set("\x1b\x07\x9b\r") & set(shown.out + shown.err)


def test_solve_as_json_has_the_answer_and_the_ledger(toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    method = "best_of_n(n=8, reward=right)"
    args = ["solve", "--task", "sums", "--item", "2", "--model", "adder", "--method", method, "--json"]
    assert main([*args, "--tokens", "200", "--seed", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answer"], found["text"], found["score"], found["task"]) == ("12", ".. 12", 1.0, "sum-2")
    assert found["cost"]["tokens"] == 8 * (5 + 3 + 2) and set(found["costs"]) == {"adder", "right"}
    assert sum(c["tokens"] for c in found["costs"].values()) == found["cost"]["tokens"]
    assert (found["started"], found["finished"], found["failed"], found["errors"]) == (8, 8, 0, [])
    assert (found["stopped_because"], found["confidence"], found["seed"]) == ("finished", None, 3)
    assert found["version"] == anystep.__version__
    assert set(found) == {
        "answer", "text", "support", "confidence", "evidence", "stopped_because", "started", "finished", "failed",
        "errors", "note", "cost", "costs", "method", "model", "seed", "task", "score", "version",
    }  # fmt: skip


def test_a_budget_that_runs_out_is_an_answer_with_its_reason(toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "5 + 7?", "--model", "adder", "--method", "sample(n=8)", "--tokens", "70", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stopped_because"] == "tokens" and found["cost"]["tokens"] <= 70 and found["text"]
    assert "early finishers are biased short" in found["note"]


def test_no_answer_is_exit_1(toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "5 + 7?", "--model", "adder", "--tokens", "6"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "no answer: nothing has finished" in err and "spent" in err


def test_failure_of_every_state_is_exit_1_with_its_ledger() -> None:
    failing = (
        f"{TOY}\nfrom dataclasses import replace\nimport numpy as np\nstep = toy_adder.Adder.step\n"
        "def fail(self, states, *rest):\n    n = len(states)\n    got = step(self, states, *rest)\n"
        "    return replace(got, status=np.full(n, 2, np.int8), errors=dict.fromkeys(range(n), 'the plug fell'))\n"
        "toy_adder.Adder.step = fail"
    )
    done = run("solve", "5 + 7?", "--model", "adder", "--method", "sample(n=8)", "--json", code=failing)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["answer"] is None and found["stopped_because"] == "failed" and found["cost"]["tokens"] > 0
    assert "the plug fell" in found["errors"][0] and "failed: All 8 states failed" in done.stderr


BAD = [
    (["solve"], "there is no question; call anystep solve"),
    (["solve", "   "], "the question is empty; call anystep solve"),
    (["solve", "hi", "--tokens", "0"], "--tokens 0 buys nothing; give a positive number, as in --tokens 4000"),
    (["solve", "hi", "--tokens", "-5"], "--tokens -5 buys nothing"),
    (["solve", "hi", "--seconds", "nan"], "--seconds nan buys nothing"),
    (["solve", "hi", "--tokens", "many"], "Invalid value for '--tokens'"),
    (["solve", "hi", "--method", "best_of_m(n=3)"], "no method 'best_of_m'; did you mean best_of_n?"),
    (["solve", "hi", "--method", "best_of_n(n=3, reward=rihgt)"], "no reward 'rihgt'; did you mean right?"),
    (["solve", "hi", "--method", "sample(m=3)"], "sample(n=1)"),
    (["solve", "hi", "--method", "sample(n={[]: 1})"], "must be a number"),
    (["solve", "hi", "--method", "sample(n=9**9**9)"], "must be a number"),
    (["solve", "hi", "--method", f"sample(n=0x{'f' * 6000})"], "out of reach"),
    (["solve", "hi", "--method", "sample(n=500000000)"], "give a number below 1,000,000"),
    (["solve", "--task", "word-problems", "--item", "999999999"], "items count from 0 to 9,999"),
    (["compare", "--task", "word-problems", "--items", "999999999"], "at most 10,000"),
    (["compare", "--task", "word-problems", "--methods", "sample(n={[]: 1})"], "n is a whole number"),
    (["solve", "hi", "--method", "sample(n=0)"], "n must be a whole number, 1 or more"),
    (["solve", "hi", "--method", "__import__('os').system('true')"], "is not a call; write it like best_of_n"),
    (["solve", "hi", "--model", "smolm"], "There is no model 'smolm'"),
    (["solve", "--item", "3"], "--item 3 needs a task"),
    (["solve", "--task", "sums", "--item", "-3"], "items count from 0"),
    (["solve", "--task", "smus"], "no task 'smus'"),
    (["solve", "hi", "--task", "sums"], "two things to answer"),
    (["solve", "hi", "--bugdet", "3"], "No such option: --bugdet"),
    (["compare", "--task", "sums", "--ns", "1,x"], "--ns '1,x' are no sizes"),
    (["compare", "--task", "sums", "--ns", "0"], "are no sizes"),
    (["compare", "--task", "sums", "--items", "0"], "--items 0"),
    (["compare", "--task", "sums", "--methods", "greedy;;sample"], "a method is empty"),
    (["compare", "--task", "sums", "--methods", "sampel", "--model", "adder"], "no method 'sampel'"),
    (["compare", "--task", "sums", "--out", "/dev/null/x"], "cannot write to /dev/null/x"),
    (["compare", "--task", "sums", "--tokens", "0"], "--tokens 0 buys nothing"),
    (["compare"], "--task and --data are missing; call anystep compare --data problems.jsonl"),
    (["compare", "--task", "sums", "--data", "x.jsonl"], "--task and --data are two sources of problems"),
    (["compare", "--task", "sums", "--scorer", "exact"], "--scorer is for problems of your own"),
    (["compare", "--data", "/no/such.jsonl"], "cannot read /no/such.jsonl"),
    (["compare", "--data", "x.jsonl", "--scorer", "exakt"], "no scorer 'exakt'; write --scorer exact|numeric"),
    (["compare", "--store", "/no/such.db"], "there is no /no/such.db; call anystep compare --data"),
    (["compare", "--task", "sums", "--retry"], "--retry needs a store"),
    (["compare", "--task", "sums", "--model", "adder", "--prices", "1,2"], "--prices is for a server"),
    (["compare", "--task", "sums", "--methods-file", "/no/my.py"], "there is no file /no/my.py"),
    (["reproduce"], "which experiment? call anystep reproduce"),
    (["reproduce", "cold-fusion"], "no experiment of this name"),
    (["catalogue", "--status", "done"], "a status is one of works, short, planned"),
    (["catalogue", "particel_filter"], "did you mean"),
    (["catalogue", "34", "--status", "works"], "two questions"),
    (["slove", "hi"], "No such command 'slove'"),
]


@pytest.mark.parametrize(("args", "says"), BAD, ids=lambda x: " ".join(x)[:40] if isinstance(x, list) else "")
def test_bad_input_is_one_line_and_exit_2(
    args: list[str], says: str, toy: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("anystep: ") and says in err and err.count("\n") == 1, err


def test_a_model_that_cannot_be_used_is_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import import_module

    def corrupt(model: str, before: object) -> None:
        raise anystep.ModelError(f"{model} is cut short:\n it says 10 tensors and has 3\x1b[2J")

    monkeypatch.setattr(import_module("anystep.solve"), "engine_for", corrupt)
    assert main(["solve", "hi", "--model", "a.gguf"]) == 1
    assert capsys.readouterr().err == "anystep: a.gguf is cut short: it says 10 tensors and has 3\\x1b[2J\n"
    with pytest.raises(anystep.ModelError):
        main(["solve", "hi", "--model", "a.gguf", "--debug"])


def test_more_states_than_memory_holds_is_no_defect() -> None:
    from anystep.cli.app import explained

    line, code = explained(MemoryError("Unable to allocate 7.28 TiB"))
    assert code == 1 and line.startswith("out of memory: ask for fewer states") and "defect" not in line


def test_a_defect_is_one_line_too_and_a_traceback_with_debug() -> None:
    broken = f"{TOY}\ntoy_adder.Adder.answers = lambda self, states: 1 / 0"
    done = run("solve", "hi", "--model", "adder", "--quiet", code=broken)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("anystep: ZeroDivisionError") and "--debug shows where" in done.stderr
    assert "Traceback" in run("solve", "hi", "--model", "adder", "--quiet", "--debug", code=broken).stderr


COMPARE = ["compare", "--task", "sums", "--model", "adder", "--ns", "1,4", "--items", "6"]


def test_compare_prints_tables_and_writes_a_report(
    toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*COMPARE, "--methods", "best_of_n(reward=right); self_consistency", "--out", str(tmp_path / "out")]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "adder on sums: 6 problems, 1 seed (0)" in out and "At equal cost" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("greedy", "self_", "best_"))] == [
        "greedy", "best_of_n(reward=right)", "best_of_n(reward=right)", "self_consistency", "self_consistency",
    ]  # fmt: skip
    assert "comparison.html" in err
    report = Report.from_json((tmp_path / "out" / "comparison.json").read_text())
    assert len(report.trials) == 6 * 5 and report.complete
    assert "<svg" in (tmp_path / "out" / "comparison.html").read_text()


def test_compare_as_json_is_the_report(toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMPARE, "--method", "best_of_n(reward=right)", "--seed", "1", "--seed", "2", "--json"]) == 0
    report = Report.from_json(capsys.readouterr().out)
    assert report.seeds == (1, 2) and len(report.trials) == 2 * 6 * 5
    assert (report.model, report.task) == ("adder", "sums")


SLOW = "import toy_adder; toy_adder.install(slow=0.05, steps=400, early=True, announce=True)"
STUBBORN = SLOW.replace("import toy_adder;", "import toy_adder, anystep; anystep.Run.cancel = lambda self: None;")


def interrupted(*args: str, code: str = SLOW, times: int = 1) -> tuple[int, str, str]:
    """The exit code and streams of a slow run that gets SIGINT once its model works, and again if it goes on."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}\nimport sys\nfrom anystep.cli import main\nsys.exit(main())", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        before = ""
        for awaited in ("third step", "again aborts")[:times]:
            while awaited not in before:
                line = process.stderr.readline()
                assert line, before
                before += line
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, before + err


def test_ctrl_c_prints_the_best_answer_and_the_ledger() -> None:
    code, out, err = interrupted("solve", "5 + 7?", "--model", "adder", "--method", "self_consistency(n=16)")
    assert code == 130
    assert out.startswith(".") and out.split()[-1].isdigit()
    assert "stopping; Ctrl-C again aborts" in err and "stopped because cancelled" in err and "spent" in err
    assert "early finishers are biased short" in err and "Traceback" not in err


def test_ctrl_c_with_json_is_json() -> None:
    code, out, _ = interrupted(
        "solve", "5 + 7?", "--model", "adder", "--method", "best_of_n(n=16, reward=right)", "--json"
    )
    found = json.loads(out)
    assert code == 130 and found["stopped_because"] == "cancelled" and found["text"]
    assert 0 < found["finished"] < 16 and found["cost"]["tokens"] > 0


def test_ctrl_c_before_anything_has_finished_says_so() -> None:
    late = SLOW.replace("early=True", "early=False")
    code, out, err = interrupted("solve", "5 + 7?", "--model", "adder", "--method", "sample(n=3)", code=late)
    assert (code, out) == (130, "")
    assert "no answer: nothing has finished; one was writing: .." in err and "spent" in err


def test_ctrl_c_ends_a_comparison_with_what_had_finished(tmp_path: Path) -> None:
    args = [
        "--task",
        "sums",
        "--model",
        "adder",
        "--items",
        "3",
        "--ns",
        "4",
        "--methods",
        "sample",
        "--out",
        str(tmp_path),
    ]
    code, out, err = interrupted("compare", *args)
    assert code == 130 and "Cancelled before its end" in out and "Traceback" not in err
    assert not Report.from_json((tmp_path / "comparison.json").read_text()).complete


def test_a_second_ctrl_c_aborts() -> None:
    code, out, err = interrupted(
        "solve", "5 + 7?", "--model", "adder", "--method", "sample(n=8)", code=STUBBORN, times=2
    )
    assert (code, out) == (130, "") and "Traceback" not in err


def test_catalogue_prints_rows_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalogue"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 232 and "232 of 232 rows" in err
    assert main(["catalogue", "particle-filter", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "search.particle_filter"
    assert main(["catalogue", "34"]) == 0
    assert "works when:" in capsys.readouterr().out
    assert main(["catalogue", "--status", "planned", "--json"]) == 0
    assert {r["status"] for r in json.loads(capsys.readouterr().out)} == {"planned"}


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "smollm2-135m" in shown and "qwen3" in shown and "gemma3_text" in shown  # names, then families
    assert "ai.google.dev/gemma/terms" in shown
    assert main(["models", "--json"]) == 0
    assert {"name", "parameters", "licence", "source", "cached"} <= set(json.loads(capsys.readouterr().out)[0])


EXPERIMENT = """
import sys, types
from anystep.experiments import Check, Experiment, Result, registry
import anystep.experiments as experiments
def measured(seed=0, progress=print):
    progress("half way")
    checks = (Check("two is two", 2.0, "==", 2.0), Check("seed is small", float(seed), "<", 1.0))
    return Result("toy", 34, checks, 0.1, seed)
toy = Experiment("toy", 34, measured)
experiments.find = lambda which: toy
experiments.discover = lambda: (toy,)
"""


def test_reproduce_prints_checks_and_fails_with_them() -> None:
    good = run("reproduce", "toy", code=EXPERIMENT)
    assert good.returncode == 0 and good.stdout.splitlines()[0] == "pass  two is two: 2 == 2"
    assert "half way" in good.stderr and "2 of 2 checks pass" in good.stderr
    bad = run("reproduce", "toy", "--seed", "3", code=EXPERIMENT)
    assert bad.returncode == 1 and "FAIL  seed is small" in bad.stdout and "1 of 2 checks pass" in bad.stderr
    assert json.loads(run("reproduce", "toy", "--json", code=EXPERIMENT).stdout)["row"] == 34
    assert run("reproduce", "--list", code=EXPERIMENT).stdout.startswith("toy  row  34")
    assert json.loads(run("reproduce", "--list", "--json", code=EXPERIMENT).stdout)[0]["name"] == "toy"


def test_version_help_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"anystep {anystep.__version__}\n"
    assert main(["--help"]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Commands:" in err
    assert CliRunner().invoke(app, ["solve", "--help"]).exit_code == 0


def test_starting_up_imports_nothing_heavy() -> None:
    code = "from anystep.cli import main; main({!r}); import sys; print(sorted(sys.modules), file=sys.stderr)"
    for args in (["--help"], ["catalogue"]):
        done = subprocess.run(
            [sys.executable, "-c", code.format(args)], capture_output=True, text=True, env=environment(), timeout=60
        )
        loaded = set(done.stderr.replace("'", "").strip(" []\n").split(", "))
        assert "anystep.cli.app" in loaded
        assert loaded.isdisjoint(
            {"torch", "scipy", "transformers", "huggingface_hub", "sympy", "rich", "anystep.language"}
        )


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    start = "import sys; from anystep.cli import main; sys.exit(main())"
    command = f"{sys.executable} -c '{start}' catalogue --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr, len(done.stdout)) == (1, "", 1)  # the rest is more than a pipe holds


def test_a_run_that_abstains_says_so_and_nothing_of_what_it_might_have_said() -> None:
    method = "self_consistency(n=16, decide=abstain(decision=majority, below=0.9))"
    done = run("solve", "C8 2 8 7 4>74?", "--model", "chainlm-2m", "--method", method)
    assert done.returncode == 1 and done.stdout == ""
    assert "no answer: it abstained" in done.stderr and "was writing" not in done.stderr
