"""The server on a real port: tokens one by one, clients that leave, Ctrl-C, and addresses that cannot be had."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from anystep.cli import main
from anystep.language.engine.engine import Engine
from anystep.ledger import Ledger
from anystep.serve import house, running
from gates import WAIT, Gate, counted
from models import chain_engine

ROOT = Path(__file__).parents[2]
ASK = {"model": "chainlm-2m", "messages": [{"role": "user", "content": "C4 7 9 3 4>97?"}], "seed": 1}


class Log:
    """The server's lines, and when one with some text in it has come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()

    def say(self, line: str) -> None:
        with self._more:
            self.lines.append(line)
            self._more.notify_all()

    def until(self, text: str) -> str:
        with self._more:
            assert self._more.wait_for(lambda: any(text in line for line in self.lines), WAIT), self.lines
            return next(line for line in self.lines if text in line)


@pytest.fixture
def engine() -> Engine:
    return chain_engine()


@pytest.fixture
def cancels(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts the runs that have been cancelled."""
    return counted(monkeypatch, Ledger, "cancel")


def texts(lines: Iterator[str]) -> Iterator[str]:
    """The pieces of text in an event stream, as they arrive."""
    for line in lines:
        if line.startswith("data: {"):
            text = json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
            if text:
                yield text


def test_each_token_arrives_before_the_next_is_computed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(engine, monkeypatch)
    with running({"chainlm-2m": engine}) as url, httpx.Client(timeout=WAIT) as client:
        with client.stream("POST", f"{url}/chat/completions", json={**ASK, "stream": True}) as response:
            pieces = texts(response.iter_lines())
            found = []
            for passes in range(1, 6):
                gate.let(1)
                found.append(next(pieces))
                assert gate.passes <= passes + 1  # the next one has at most come to the gate
            gate.free()
            found += pieces
        assert "".join(found) == "7-4=3\n3*4=12\n12*9=98\n98+3=91."


@pytest.mark.parametrize("body", [{"stream": True}, {}, {"anystep": {"method": "best_of_n(n=8, reward=chain_steps)"}}])
def test_a_client_that_leaves_stops_the_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, cancels: threading.Semaphore, body: dict[str, Any]
) -> None:
    gate, log = Gate(engine, monkeypatch), Log()
    with running({"chainlm-2m": engine}, say=log.say) as url:
        request = json.dumps({**ASK, **body}).encode()
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port)), timeout=WAIT) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(request)}\r\n\r\n".encode() + request)
            gate.let(3)
            gate.arrived()
        assert cancels.acquire(timeout=WAIT)
        gate.free()
        line = log.until("client left")
        assert gate.passes == 4  # the one under way, and nothing after it
        assert " 499 " in line and "tokens" in line
        after = httpx.post(f"{url}/chat/completions", json=ASK, timeout=WAIT).json()  # the server goes on
        assert after["choices"][0]["message"]["content"] == "7-4=3\n3*4=12\n12*9=98\n98+3=91."


def test_the_end_of_the_server_cancels_all_runs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, cancels: threading.Semaphore
) -> None:
    gate, begun = Gate(engine, monkeypatch), counted(monkeypatch, house, "adrive")
    ends: list[httpx.Response] = []

    def ask(url: str, body: dict[str, Any]) -> None:
        ends.append(httpx.post(f"{url}/chat/completions", json={**ASK, **body}, timeout=WAIT))

    def release() -> None:
        for _ in range(3):
            assert cancels.acquire(timeout=WAIT)
        gate.free()

    threads = [threading.Thread(target=release)]
    with running({"chainlm-2m": engine}) as url:
        threads += [threading.Thread(target=ask, args=(url, body)) for body in ({}, {"stream": True}, {"n": 4})]
        for thread in threads:
            thread.start()
        for _ in range(3):
            assert begun.acquire(timeout=WAIT)
        gate.arrived()
    for thread in threads:
        thread.join(WAIT)
    assert len(ends) == 3 and all("shutting_down" in end.text for end in ends)
    assert gate.passes == 1


def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if k != "ANYSTEP_KEY"}
    return {**clean, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"}


COMMAND = [sys.executable, "-c", "import sys; from anystep.cli import main; sys.exit(main())", "serve"]


@contextmanager
def served(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the URL it prints."""
    with subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_command_prints_its_url_and_ends_at_ctrl_c() -> None:
    with served("--model", "chainlm-2m", "--model", "mine=chainlm-2m", "--port", "0") as (process, url):
        assert url.startswith("http://127.0.0.1:") and not url.endswith(":0/v1")
        names = [model["id"] for model in httpx.get(f"{url}/models").json()["data"]]
        assert names == ["chainlm-2m", "mine"]
        found = httpx.post(f"{url}/chat/completions", json={**ASK, "model": "mine"}, timeout=WAIT).json()
        assert found["choices"][0]["message"]["content"] == "7-4=3\n3*4=12\n12*9=98\n98+3=91."
        long = {**ASK, "anystep": {"method": "best_of_n(n=1024, reward=chain_steps)", "progress": True}, "stream": True}
        with httpx.stream("POST", f"{url}/chat/completions", json=long, timeout=WAIT) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            process.send_signal(signal.SIGINT)
            assert "shutting_down" in "".join(lines)
        assert process.wait(WAIT) in (0, 130)
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/models")


def test_what_cannot_be_served_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANYSTEP_KEY", raising=False)

    def refused(*args: str) -> tuple[int, str]:
        code = main(["serve", *args])
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("anystep: ")
        return code, err

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, line = refused("--model", "chainlm-2m", "--port", port)
        assert code == 1 and f"127.0.0.1:{port}" in line and "--port 0" in line
    code, line = refused("--model", "chainlm-2m", "--host", "0.0.0.0", "--port", "0")
    assert code == 2 and "key" in line
    code, line = refused("--model", "chainlm-3m", "--port", "0")
    assert code == 2 and "no model 'chainlm-3m'" in line
    assert refused("--model", "a=", "--port", "0")[0] == 2
    assert refused("--model", "chainlm-2m", "--model", "chainlm-2m")[0] == 2
    assert refused("--port", "70000")[0] == 2
    assert refused("--host", "not a host", "--key", "k", "--port", "0")[0] == 2
    assert refused("--key", "schlüssel", "--port", "0")[0] == 2


def test_beyond_this_machine_a_key_is_asked_for(engine: Engine) -> None:
    with running({"chainlm-2m": engine}, host="0.0.0.0", key="open-sesame") as url:
        local = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{local}/models").status_code == 401
        assert httpx.get(f"{local}/models", headers={"authorization": "Bearer open-sesame"}).status_code == 200
