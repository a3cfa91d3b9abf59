"""Journals as they are typed: written, interrupted, gone on with in another process, and looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from test_cli import TOY, environment, run

import anystep
import toy_adder
from anystep import Budget, journal, search
from anystep.cli import main
from anystep.errors import AnystepError, JournalError, UsageError

METHOD = "beam(width=3, reward=right, branch=2)"
ASK = ["solve", "--task", "sums", "--item", "2", "--model", "adder", "--method", METHOD]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_adder.install(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


def told(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    assert main([*args, "--json"]) == code, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    costs = {by: cost | {"seconds": 0} for by, cost in record["costs"].items()}
    return record | {"cost": record["cost"] | {"seconds": 0}, "costs": costs}


def test_a_journal_changes_no_answer_and_resuming_an_ended_run_just_prints_it(
    toy: None, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = told(capsys, *ASK)
    kept = told(capsys, *ASK, "--journal", str(path))
    assert without_time(kept) == without_time(plain)
    before = path.read_bytes()
    monkeypatch.setattr(import_module("anystep.resuming"), "run_for", None)  # no model is made, and nothing is run
    assert told(capsys, "resume", str(path)) == kept
    assert path.read_bytes() == before
    assert main(["resume", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{kept['text']}\n" and "stopped because finished" in err and "scored 1" in err


def test_the_same_command_again_goes_on_with_the_same_journal(
    toy: None, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = told(capsys, *ASK, "--journal", str(path))
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(raw[:5]))
    assert without_time(told(capsys, *ASK, "--journal", str(path))) == without_time(whole)
    assert main([*ASK, "--seed", "9", "--journal", str(path)]) == 1
    assert "belongs to another run: its seed is 0, not 9" in capsys.readouterr().err


def test_killed_at_its_third_step_it_goes_on_in_a_fresh_process(path: Path) -> None:
    slow = "import toy_adder; toy_adder.install(announce=True)"
    whole = run(*ASK, "--json", "--quiet", code=TOY)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{slow}\nimport sys\nfrom anystep.cli import main\nsys.exit(main())", *ASK]
        + ["--journal", str(path), "--quiet"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None and process.stdout is not None
    assert process.stderr.readline() == "third step\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    viewed = run("view", str(path), "--json")
    assert json.loads(viewed.stdout)["state"] == "not finished", viewed.stderr
    done = run("resume", str(path), "--json", code=TOY)
    assert "going on after" in done.stderr and done.returncode == 0
    assert without_time(json.loads(done.stdout)) == without_time(json.loads(whole.stdout))


def test_ctrl_c_leaves_a_run_that_can_be_gone_on_with(path: Path) -> None:
    slow = "import toy_adder; toy_adder.install(slow=0.02, steps=400)"
    args = ["solve", "5 + 7?", "--model", "adder", "--method", "sample(n=4)", "--journal", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{slow.replace('slow', 'announce=True, slow')}\nimport sys\n"
         "from anystep.cli import main\nsys.exit(main())", *args],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    told = iter(process.stderr.readline, "")  # ends with the process, should it not come so far
    assert any("third step" in line for line in told)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and f"to go on: anystep resume {path}" in err
    done = run("resume", str(path), "--json", code="import toy_adder; toy_adder.install(steps=400)")
    found = json.loads(done.stdout)
    assert found["stopped_because"] == "finished" and found["finished"] == 4, done.stderr
    spent = found["cost"]["generated"], found["cost"]["prompt"]
    assert spent[0] <= 4 * 400 + 400 and spent[1] <= 4 * 5 + 5  # closing had finished one state, and no more


def test_more_budget_lets_a_refused_run_go_on(toy: None, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = told(capsys, *ASK)
    part = told(capsys, *ASK, "--tokens", "40", "--journal", str(path))
    assert part["stopped_because"] == "tokens" and part["cost"]["tokens"] <= 40
    assert main(["resume", str(path)]) == (0 if part["text"] else 1)
    assert f"anystep resume {path} --tokens MORE" in capsys.readouterr().err
    more = told(capsys, "resume", str(path), "--tokens", "4000")
    assert [more[k] for k in ("text", "answer", "score", "stopped_because")] == [
        whole[k] for k in ("text", "answer", "score", "stopped_because")
    ]
    shown = told(capsys, "view", str(path))
    assert shown["budget"] == {"tokens": 4000} and len(shown["resumed"]) == 1 and shown["state"] == "finished"
    assert shown["cost"]["tokens"] == more["cost"]["tokens"]
    assert without_time(told(capsys, "resume", str(path))) == without_time(more)


def test_what_can_be_seen_of_a_run(toy: None, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASK, "--tokens", "4000", "--journal", str(path), "--quiet"]) == 0
    answer = capsys.readouterr().out.strip()
    assert main(["view", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for said in ("sums, item 2", "beam(width=3", "of 4,000 tokens", "Rounds: ", "score by right", "step by adder"):
        assert said in out, out
    assert f"Answer: {answer}" in out and "stopped because finished" in out and "right 0.9" in out
    assert main(["view", str(path), "--rows", "3", "--depth", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < len(out.splitlines())
    shown = told(capsys, "view", str(path))
    assert {n["status"] for n in shown["family"]} == {"live", "done"} and shown["end"]["text"].strip() == answer


def test_a_journal_of_ones_own_process_says_how_to_go_on(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process, method = toy_adder.Adder(12, 0.6), search.sample(n=2)
    anystep.solve("5 + 7?", model=process, method=method, budget=Budget(tokens=14), journal=path)
    assert main(["resume", str(path), "--tokens", "100"]) == 2
    assert f"go on there: anystep.resume('{path}', ...) with the same" in capsys.readouterr().err
    with pytest.raises(UsageError, match="model=..., method=..."):
        anystep.resume(path)
    answer = anystep.resume(path, model=process, method=method, budget=Budget(tokens=100))
    assert answer.finished == 2 and answer.stopped_because == "finished"
    assert main(["view", str(path)]) == 0
    assert "5 + 7?" in capsys.readouterr().out


def test_a_head_never_holds_a_key_and_a_server_elsewhere_must_be_named(path: Path) -> None:
    from anystep.recipe import read, recipe, trusted

    secret = "sk-very-secret"
    url = f"https://me:{secret}@api.example.com/v1?key={secret}#some-model"
    found = recipe("q", url, "greedy", {"api_key": secret, "extra": {"token": secret}, "temperature": 0.5})
    assert secret not in json.dumps(found)
    assert found["model"] == "https://api.example.com/v1#some-model" and found["options"] == {"temperature": 0.5}
    assert read(found, path).lacking == ("api_key", "extra")
    with pytest.raises(UsageError, match="asks the server 'https://api.example.com/v1#some-model'; if it is yours"):
        trusted(found["model"], path)
    assert trusted("http://127.0.0.1:8080/v1", path) and trusted("chainlm-2m", path)


def test_a_wrong_call_is_one_line(tmp_path: Path, toy: None, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = str(tmp_path / "nowhere")
    for args, code, said in (
        (["view", nowhere], 1, "cannot be read: No such file"),
        (["resume", nowhere], 1, "there is no such journal"),
        (["view", nowhere, "--rows", "0"], 2, "show nothing"),
        (["resume", nowhere, "--tokens", "0"], 2, "buys nothing"),
        ([*ASK, "--journal", str(tmp_path)], 1, "cannot be opened as a journal"),
    ):
        assert main(args) == code
        out, err = capsys.readouterr()
        assert out == "" and said in err and err.count("\n") == 1, err
    with pytest.raises(UsageError, match="a journal keeps one run"):
        anystep.solve_many(["a"], model=toy_adder.Adder(1, 0.5), journal=nowhere)
    with pytest.raises(JournalError):
        anystep.resume(nowhere)


def test_asking_while_it_is_written_is_refused_but_it_can_be_seen(path: Path, toy: None, capsys: Any) -> None:
    process, method = toy_adder.Adder(12, 0.6), search.sample(n=2)
    with journal.open(path) as mine:
        half = anystep.Run(process, method, journal=mine)
        half.tell([call.perform() for call in half.calls])
        assert main(["resume", str(path)]) == 1
        assert "another process is writing this journal" in capsys.readouterr().err
        with path.open("ab") as file:
            file.write(b"0123456789abcdef {half a li")
        assert told(capsys, "view", str(path))["state"] == "being written"
        os.truncate(path, path.stat().st_size - 27)
    assert told(capsys, "view", str(path))["state"] == "not finished"


@pytest.mark.parametrize(
    ("found", "said"),
    [({"model": "someone/model"}, "from the Hugging Face hub; if it is yours"),
     ({"model": "https://evil.example/v1#m"}, "asks the server"), ({"model": "http://[::1/v1"}, "asks the server"),
     ({"model": None}, "recipe that anystep did not write"),
     ({"task": {"name": "word-problems", "item": 2**31 - 1}}, "recipe that anystep did not write")],
)  # fmt: skip
def test_a_strangers_journal_has_nothing_fetched_and_nobody_asked(
    found: dict[str, Any], said: str, tmp_path: Path
) -> None:
    from anystep.recipe import read, trusted

    recipe = {"task": {"question": "q"}, "model": "chainlm-2m", "method": "greedy", "options": {}, "lacking": []}
    with pytest.raises(AnystepError, match=said):
        trusted(str(read(recipe | found, tmp_path / "j").model), tmp_path / "j")


def test_a_folder_that_looks_like_a_hubs_name_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anystep.recipe import trusted

    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert trusted("models/mine", Path("j")) == "models/mine"
