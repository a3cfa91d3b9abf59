"""`anystep compare` on one's own problems: data, scorers, methods of a file, a store, an endpoint, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anystep.bench import Report, Store
from anystep.cli import main
from anystep.cli.asked import Asked, public
from anystep.testing.server import FakeServer, says
from anystep.testing.server.faults import Gate

ROOT = Path(__file__).parents[2]

METHODS = '''
from anystep import procedure, search
from anystep.procedure import ByReward, Count, Exploring, score, start, step
from anystep.process import reward
from anystep.naming import rewards

@procedure(decide=search.majority)
def twice(n: Count = 1) -> Exploring:
    """Votes among 2n samples."""
    return (yield from step((yield from start(2 * n)), until="done"))

@procedure(decide=search.best_reward)
def picky(reward: ByReward, n: Count = 1) -> Exploring:
    """The best of n by a reward."""
    population = yield from step((yield from start(n)), until="done")
    return population.scored((yield from score(population, reward)))

@procedure(decide=search.majority)
def broken(n: Count = 1) -> Exploring:
    """Always fails."""
    population = yield from start(n)
    return nothing

def short(states):
    return [1.0 / (1 + len(text)) for text in states.texts()]

METHODS = {"vote of three": lambda n, task: search.self_consistency(n=3 * n)}
REWARDS = {"shortest": lambda task: reward(short)}
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"q{i}", "question": f"What is {i} + 2?", "answer": str(i + 2)} for i in range(4)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + "oops\n" + json.dumps({"question": "Why?"}) + "\n"
    (tmp_path / "problems.jsonl").write_text(text)
    (tmp_path / "mine.py").write_text(METHODS)
    return tmp_path


def adds(right: bool = True) -> Any:
    """A script that adds: right always, or on every second seed."""

    def script(request: Any, choice: int) -> Any:
        words = str(request.messages[-1]["content"]).split()
        total = int(words[2]) + 2 if len(words) > 2 else 0
        wrong = 0 if right or (request.seed + choice) % 2 == 0 else 1
        return says(f"It makes {total + wrong}.")(request, choice)

    return script


def ask(server: FakeServer, *more: str) -> list[str]:
    own = ["compare", "--data", "problems.jsonl", "--scorer", "numeric", "--model", f"{server.url}#toy", "--ns", "1,4"]
    return [*own, *more]


def test_two_commands_make_a_frontier_of_one_s_own_problems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(adds()) as server:
        assert main(ask(server, "--out", "report", "--prices", "1,2", "--json")) == 0
        out, err = capsys.readouterr()
        calls = server.counts.requests["/chat/completions"]
    report = Report.from_json(out)
    assert [(p.label, p.n, p.accuracy.value, p.unscored) for p in report.points] == [
        ("greedy", 1, 1.0, 1), ("self_consistency", 1, 1.0, 1), ("self_consistency", 4, 1.0, 1),
    ]  # fmt: skip
    assert sum(t.cost.calls for t in report.trials) == calls == 5 * 6
    assert all(t.cost.money > 0 for t in report.trials)
    assert "problems.jsonl:5: not JSON" in err and "problems.jsonl:6: no answer: it runs unscored" in err
    page = (folder / "report" / "comparison.html").read_text()
    assert "by money" in page and "problems.jsonl:5: not JSON" in page and "What is 3 + 2?" in page
    assert "anystep compare --data problems.jsonl --scorer numeric" in page


def test_a_store_goes_on_with_nothing_else_said_and_takes_more(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(adds(right=False)) as server:
        assert main(ask(server, "--store", "s.db", "--items", "3", "--json")) == 0
        first, asked = capsys.readouterr().out, server.counts.calls
        assert main(["compare", "--store", "s.db", "--json"]) == 0
        again, err = capsys.readouterr()
        assert server.counts.calls == asked and "going on from s.db: 9 runs are there" in err
        assert json.loads(again)["trials"] == json.loads(first)["trials"]
        assert main(["compare", "--store", "s.db", "--items", "4", "--json"]) == 0
        more = Report.from_json(capsys.readouterr().out)
        assert len(more.trials) == 12 and server.counts.calls == asked + 1 + 1 + 4
        for changed in (["--scorer", "exact"], ["--temperature", "0.5"], ["--model", f"{server.url}#other"]):
            assert main(["compare", "--store", "s.db", *changed]) == 2
            assert "holds another comparison" in capsys.readouterr().err
        (folder / "problems.jsonl").write_text('{"id": "q0", "question": "Else?", "answer": "1"}\n')
        assert main(["compare", "--store", "s.db"]) == 2
        assert "another item called 'q0': its content has changed" in capsys.readouterr().err


def test_resume_takes_a_store_and_a_server_that_has_moved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(adds()) as server:
        assert main(ask(server, "--store", "s.db", "--items", "1")) == 0
        assert main(["resume", "s.db", "--json"]) == 0
        first = capsys.readouterr().out.partition("{")
    with FakeServer(adds()) as elsewhere:
        assert main(["compare", "--store", "s.db", "--model", f"{elsewhere.url}#toy", "--items", "2", "--json"]) == 0
        assert len(Report.from_json(capsys.readouterr().out).trials) == 6 and first[2]
        assert main(["resume", "s.db", "--model", f"{elsewhere.url}#other"]) == 2
        assert "model 'toy' there, 'other' here" in capsys.readouterr().err
        assert main(["resume", "s.db", "--tokens", "5"]) == 2
        assert "is a comparison's store, whose budget is fixed" in capsys.readouterr().err


def test_a_store_from_elsewhere_neither_runs_code_nor_asks_a_server_unnamed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--method", "mine.py:twice", "--scorer", "python:mine.py:score"]
    (folder / "mine.py").write_text(METHODS + "\ndef score(text, row):\n    return True\n")
    with FakeServer(adds()) as server:
        assert main(ask(server, "--store", "s.db", *own)) == 0
        capsys.readouterr()
        for given, says in (
            ([], "runs Python code: if 'python:mine.py:score' is yours, say so: --scorer"),
            (own[2:], "runs Python code: if 'mine.py:twice' is yours, say so: --method"),
        ):
            assert main(["compare", "--store", "s.db", *given]) == 2
            assert says in capsys.readouterr().err
        assert main(["compare", "--store", "s.db", *own]) == 0
    with Store("s.db") as store:
        store.keep("asked", {**store.fact("asked"), "model": "https://far.example/v1#toy"})
    capsys.readouterr()
    for command in (["compare", "--store", "s.db", *own], ["resume", "s.db"]):
        assert main(command) == 2
        assert "asks the server 'https://far.example/v1#toy'; if it is yours, say so" in capsys.readouterr().err


def test_no_secret_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANYSTEP_API_KEY", "sk-very-secret")
    with FakeServer(adds(), api_key="sk-very-secret") as server:
        assert main(ask(server, "--out", "report")) == 0
    for path in (folder / "report").iterdir():
        assert b"very-secret" not in path.read_bytes()
    assert public("https://me:pass@host.example/v1?key=pass#m") == "https://host.example/v1#m"
    assert "pass" not in json.dumps(Asked(data="d", model="https://me:pass@host.example/v1#m").record())
    assert "pass" not in Asked(data="d", model="https://me:pass@host.example/v1#m").command()


def test_methods_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(adds(right=False)) as server:
        named = ["--method", "mine.py:picky(reward=shortest)", "--method", "mine.py:vote of three", "--json"]
        assert main(ask(server, *named, "--method", "mine.py:twice")) == 0
        report = Report.from_json(capsys.readouterr().out)
        calls = {(p.label, p.n): p.calls for p in report.points}
        assert calls["picky(reward=shortest)", 4] == 4 and calls["vote of three", 4] == 12 and calls["twice", 4] == 8
        assert main(ask(server, "--method", "mine.py:broken")) == 2
        assert "broken: mine.py:22: NameError: name 'nothing' is not defined" in capsys.readouterr().err
        (folder / "other.py").write_text(METHODS.replace("return nothing", "return population"))
        assert main(ask(server, "--methods-file", "other.py", "--json")) == 0
        labels = Report.from_json(capsys.readouterr().out).labels
        assert labels == ("greedy", "self_consistency", "vote of three", "twice", "broken")  # picky needs its reward


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1 +\n", "bad0.py:1: SyntaxError"),
        ("import nowhere_at_all\n", "bad1.py:1: ModuleNotFoundError"),
        ("METHODS = {'a': 3}\n", "METHODS maps labels to functions"),
        ("METHODS = {'a': lambda n, task: task.nothing}\n", "bad3.py:1: AttributeError"),
        ("METHODS = {'a': lambda n, task: 3}\n", "a family gave 3 for a method"),
        ("x = 1\n", "bad5.py has no methods to compare"),
    ],
)
def test_errors_in_a_file_of_methods_name_their_line(
    folder: Path, text: str, says: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"bad{request.node.callspec.indices['text']}.py"
    (folder / name).write_text(text)
    assert main(["compare", "--task", "chains", "--items", "1", "--model", "chainlm-2m", "--methods-file", name]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_ctrl_c_leaves_no_request_and_loses_nothing(folder: Path) -> None:
    gate = Gate()
    with FakeServer(adds(), faults=lambda r: gate if "3 + 2" in str(r.messages) else None) as server:
        code = "import sys\nfrom anystep.cli import main\nsys.exit(main())"
        path = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        words = [sys.executable, "-c", code, *ask(server, "--store", "s.db")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=path)
        waits = 1 + 1 + 4  # that item's runs, greedy and two votes, behind the gate
        assert server.counting.until(60, completed=5 * 6 - waits)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130 and "go on with: anystep compare --store s.db" in err
        assert "Cancelled before its end" in out and server.idle(10)
        done = server.counts.completed
        gate.release()
        assert main(["compare", "--store", "s.db", "--quiet"]) == 0
        again = server.counts.completed - done
        assert waits <= again <= waits + 8  # that item's, and once more what the server is
    with Store(folder / "s.db") as store:
        assert len(store.trials()) == 15
