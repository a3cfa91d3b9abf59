"""Journals of runs on a server: no request is sent twice, and no key is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import Cost, Run, drive, journal, search
from anystep.errors import JournalError
from anystep.journal.codec import loaded
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.solve import run_for
from anystep.testing.oracles import JudgeReward
from anystep.testing.runs import finish, near_outcome
from anystep.testing.server import FakeServer, Offers

SECRET = "sk-nobody-may-read-this"
METHOD = search.beam(2, JudgeReward(lambda s: np.array([len(t) % 7 / 7 for t in s.texts()]), "length"), branch=2)


def process(server: FakeServer, endpoint: Endpoint) -> EndpointProcess:
    return EndpointProcess(endpoint, "What is 2 + 2?", unit="step", stop="α", max_tokens=24)


def asked(server: FakeServer) -> int:
    assert server.idle()
    return sum(n for route, n in server.counts.requests.items() if route.endswith("completions"))


def test_a_run_on_a_server_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    with FakeServer(offers=Offers(stop_reason=False), api_key=SECRET) as server:
        with Endpoint(server.url, key=SECRET) as endpoint:
            endpoint.probe()
            before = asked(server)
            whole = Run(process(server, endpoint), METHOD, journal=journal.open(path))
            finish(whole)
            requests = asked(server) - before
        data = path.read_bytes()
        assert SECRET.encode() not in data and requests == whole.ledger.by["toy"].calls
        raw = data.splitlines(keepends=True)
        rounds = [i for i, line in enumerate(raw) if b'"kind":"round"' in line]
        for at in range(1, len(rounds), 2):
            path.write_bytes(b"".join(raw[: rounds[at]]))
            with Endpoint(server.url, key=SECRET) as endpoint:
                endpoint.probe()
                run = journal.resume(path, process(server, endpoint), METHOD)
                paid, before = run.ledger.by.get("toy", Cost()).calls, asked(server)
                assert run.ledger.by["toy.probe"] == whole.ledger.by["toy.probe"]  # no reply says so, but it was paid
                finish(run)
            assert asked(server) - before == requests - paid
            assert run.ledger.by["toy"].same(
                whole.ledger.by["toy"]
            )  # another life probes the server again, and says so
            near_outcome(whole, run, f"resuming after {at} rounds")


def test_other_questions_and_other_options_are_known(tmp_path: Path) -> None:
    with FakeServer() as server, Endpoint(server.url) as endpoint:
        made = [
            EndpointProcess(endpoint, prompt, max_tokens=cap, extra=extra)
            for prompt in ("What is 2 + 2?", "What is 2 + 3?", [{"role": "user", "content": "What is 2 + 2?"}])
            for cap in (9, 10)
            for extra in ({}, {"user": SECRET})
        ]
        assert len({p.settings() for p in made}) == len(made)
        assert not any(SECRET in p.settings() for p in made)


ROW = {"prompt": 0, "text": "", "thought": "", "generated": 0, "waited": 0, "closed": False, "asked": []}


@pytest.mark.parametrize(
    "record",
    [
        {"prompts": [3], "rows": []},
        {"prompts": [[]], "rows": []},
        {"prompts": ["p"], "rows": [ROW | {"prompt": 1}]},
        {"prompts": ["p"], "rows": [ROW | {"prompt": -1}]},
        {"prompts": ["p"], "rows": [ROW | {"text": 7}]},
        {"prompts": ["p"], "rows": [ROW | {"generated": "x"}]},
        {"prompts": ["p"], "rows": [ROW | {"asked": [["a", "b"]]}]},
        {"prompts": ["p"], "rows": [ROW | {"closed": 1}]},
        {"prompts": ["p"], "rows": [ROW | {"more": 1}]},
        {"prompts": ["p"], "rows": [3]},
    ],
)
def test_a_conversation_that_nobody_wrote_is_refused(record: dict[str, Any]) -> None:
    process = EndpointProcess(Endpoint("http://127.0.0.1:9/v1#toy", api="chat", retries=0), "p")
    with pytest.raises(JournalError, match="cannot read these states"):
        loaded(process, json.dumps(record).encode())
    assert loaded(process, json.dumps({"prompts": ["p"], "rows": [ROW]}).encode()).texts() == ("",)
    process.server.close()


@pytest.mark.parametrize("option", [{}, {"temperature": 0.7, "max_tokens": 9}])
def test_a_server_s_run_is_made_again_by_names(tmp_path: Path, option: dict[str, Any]) -> None:
    from anystep.resuming import resumed_run

    path = tmp_path / "run.journal"
    with FakeServer() as server:
        run = run_for("What is 2 + 2?", server.url, "sample(n=3)", seed=4, journal=path, **option)
        (answer,) = drive(run)
        raw = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(raw[:2]))
        again = resumed_run(path)
        (other,) = drive(again)
        assert other.text == answer.text and again.rounds == run.rounds
        for one in (run, again):
            one.process.server.close()
